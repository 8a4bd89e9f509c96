package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

// runtimes are the OCI runtimes a bundle has to work with.
var runtimes = []string{"runc", "crun"}

// withoutUnified runs its arguments where crun works on a hybrid host.
const withoutUnified = "../../test/without-unified"

// command returns the command that runs a runtime.
func command(ctx context.Context, runtime string, args ...string) *exec.Cmd {
	if runtime == "crun" {
		args = append([]string{runtime}, args...)
		runtime = withoutUnified
	}
	return exec.CommandContext(ctx, runtime, args...)
}

// runBundle runs the bundle in dir with a runtime and returns its output and exit status.
func runBundle(t *testing.T, runtime, dir string) (string, int) {
	t.Helper()
	root, id := t.TempDir(), fmt.Sprintf("bundle-%d-%s", os.Getpid(), filepath.Base(dir))
	ctx := deadline(t, 30*time.Second)
	cmd := command(ctx, runtime, "--root", root, "run", "--bundle", dir, id)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if left, err := command(ctx, runtime, "--root", root, "delete", "--force", id).CombinedOutput(); err != nil {
		t.Logf("nothing to delete: %s", left)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestBundleRunsProgramsOfTheHost(t *testing.T) {
	rows := []struct {
		name   string
		cfg    client.BundleConfig
		output string
		status int
	}{
		{"shell and coreutils", client.BundleConfig{
			Args: []string{"sh", "-c", "ls /bin/sh /usr/bin/env && cat /etc/hostname && id -u && exit 7"},
		}, "/bin/sh\n/usr/bin/env\nbox\n0\n", 7},
		{"environment", client.BundleConfig{
			Args: []string{"/bin/sh", "-c", "echo $GREETING; pwd; hostname"}, Env: []string{"GREETING=hi"},
			Cwd: "/tmp", Hostname: "reef",
		}, "hi\n/tmp\nreef\n", 0},
		{"another user", client.BundleConfig{
			Args: []string{"sh", "-c", "id -un; id -g; echo x >/tmp/x && cat /tmp/x; chown 0 /tmp/x 2>/dev/null || echo no"}, UID: 1000,
		}, "user\n1000\nx\nno\n", 0},
		{"host is read-only", client.BundleConfig{
			Args: []string{"sh", "-c", "touch /usr/x /etc/y 2>/dev/null; test -e /usr/x || test -e /etc/y && echo etc"},
		}, "etc\n", 0},
		{"read-only rootfs", client.BundleConfig{
			Args: []string{"sh", "-c", "touch /etc/y 2>/dev/null || touch /tmp/y && echo tmp"}, ReadonlyRootfs: true,
		}, "tmp\n", 0},
		{"own pid namespace", client.BundleConfig{Args: []string{"sh", "-c", "echo $$"}}, "1\n", 0},
		{"pid namespace of the host", client.BundleConfig{
			Args: []string{"sh", "-c", "test $$ -gt 1 && echo host"}, HostPID: true,
		}, "host\n", 0},
		{"pseudo-terminals", client.BundleConfig{Args: []string{"sh", "-c", "ls /dev/ptmx /dev/null /dev/shm"}}, "/dev/null\n/dev/ptmx\n\n/dev/shm:\n", 0},
		{"edited", client.BundleConfig{
			Args: []string{"false"}, Edit: func(s *specs.Spec) { s.Process.Args = []string{"echo", "edited"} },
		}, "edited\n", 0},
	}
	needRoot(t)
	for _, runtime := range runtimes {
		if _, err := exec.LookPath(runtime); err != nil {
			t.Errorf("needs %s: %v", runtime, err)
			continue
		}
		for _, row := range rows {
			t.Run(runtime+" "+row.name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "box")
				leak.Check(t, leak.Mounts(dir))
				if err := client.NewBundle(dir, row.cfg); err != nil {
					t.Fatal(err)
				}
				output, status := runBundle(t, runtime, dir)
				if output != row.output || status != row.status {
					t.Errorf("got %q, status %d; want %q, status %d", output, status, row.output, row.status)
				}
			})
		}
	}
}

func TestBundleHasMountsAndLimitsAskedFor(t *testing.T) {
	needRoot(t)
	dir, shared := filepath.Join(t.TempDir(), "box"), t.TempDir()
	cgroup := fmt.Sprintf("/client-test-%d", os.Getpid())
	cfg := client.BundleConfig{
		Args:        []string{"sh", "-c", "echo mine >/mnt/file; cat /proc/self/cgroup"},
		CgroupsPath: cgroup + "/box", MemoryLimit: 64 << 20,
		Mounts: []specs.Mount{{Destination: "/mnt", Source: shared, Type: "bind", Options: []string{"bind", "rw"}}},
	}
	if err := client.NewBundle(dir, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroups(t, cgroup) })
	output, status := runBundle(t, "runc", dir)
	if status != 0 || !strings.Contains(output, cgroup+"/box") {
		t.Errorf("status %d, output %q; want cgroup %s/box", status, output, cgroup)
	}
	if data, err := os.ReadFile(filepath.Join(shared, "file")); err != nil || string(data) != "mine\n" {
		t.Errorf("shared file: %q, %v", data, err)
	}
}

// removeCgroups removes the parent cgroup that a runtime has made and left, from each hierarchy.
func removeCgroups(t *testing.T, path string) {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + path)
	if err != nil {
		t.Error(err)
	}
	for _, dir := range append(dirs, "/sys/fs/cgroup"+path) {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
}

func TestSpecSaysWhatTheConfigSays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "box")
	cfg := client.BundleConfig{
		Args: []string{"a", "b"}, Terminal: true, UID: 5, HostPID: true, MemoryLimit: 1 << 20,
		CgroupsPath: "/x/y", ReadonlyRootfs: true, Annotations: map[string]string{"k": "v"}, OCIVersion: "1.1.0",
	}
	for range 2 { // a bundle is overwritten
		if err := client.NewBundle(dir, cfg); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := client.ReadSpec(dir)
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Version, Hostname, Cgroup, Root string
		Args                            []string
		Terminal, Readonly, PID         bool
		UID                             uint32
		Memory                          int64
		Annotations                     map[string]string
	}
	got := facts{
		Version: spec.Version, Hostname: spec.Hostname, Cgroup: spec.Linux.CgroupsPath, Root: spec.Root.Path,
		Args: spec.Process.Args, Terminal: spec.Process.Terminal, Readonly: spec.Root.Readonly,
		UID: spec.Process.User.UID, Memory: *spec.Linux.Resources.Memory.Limit, Annotations: spec.Annotations,
	}
	for _, ns := range spec.Linux.Namespaces {
		got.PID = got.PID || ns.Type == specs.PIDNamespace
	}
	want := facts{
		Version: "1.1.0", Hostname: "box", Cgroup: "/x/y", Root: "rootfs", Args: []string{"a", "b"},
		Terminal: true, Readonly: true, UID: 5, Memory: 1 << 20, Annotations: map[string]string{"k": "v"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExecSpecIsAProcess(t *testing.T) {
	any, err := client.ExecSpec(client.BundleConfig{Args: []string{"id"}, UID: 3, Terminal: true, Env: []string{"A=b"}})
	if err != nil {
		t.Fatal(err)
	}
	process := &specs.Process{}
	if err := json.Unmarshal(any.Value, process); err != nil {
		t.Fatal(err)
	}
	if any.TypeUrl != "types.containerd.io/opencontainers/runtime-spec/1/Process" ||
		process.User.UID != 3 || !process.Terminal || process.Cwd != "/" || process.Capabilities != nil ||
		!strings.Contains(strings.Join(process.Env, " "), "A=b") {
		t.Errorf("%s: %+v", any.TypeUrl, process)
	}
}

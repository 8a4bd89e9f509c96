package direct

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
	"holdfast/oom"
)

// userVariable tells the copy of this binary that an ordinary user runs which of the settings it is in.
const userVariable = "HOLDFAST_TEST_USER"

// testUser has ranges in /etc/subuid and /etc/subgid, as rootless containers need them.
const testUser = "tester"

// settings are the ways in which an ordinary user runs containers, and what the user's copy of this
// binary is started with.
var settings = map[string][]string{
	"cgroupfs": nil,
	"systemd":  nil,
	// As rootless containerd is: the manager, the shim and the runtime think that they are root.
	"namespace": {"unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--"},
}

// A user who has but a cgroup that systemd has delegated and ranges of uids runs shim and containers.
func TestRootless(t *testing.T) {
	if setting := os.Getenv(userVariable); setting != "" {
		lifeWithoutRoot(t, setting)
		return
	}
	needsSystemd(t)
	u, err := user.Lookup(testUser)
	if err != nil {
		t.Skipf("needs a user %s with ranges in /etc/subuid and /etc/subgid: %v", testUser, err)
	}
	if out, err := exec.Command("systemctl", "start", "user@"+u.Uid+".service").CombinedOutput(); err != nil {
		t.Fatalf("start the user's systemd: %v\n%s", err, out)
	}
	for setting, wrapper := range settings {
		t.Run(setting, func(t *testing.T) {
			out, err := asUser(t, u, append(wrapper, ownCopy(t, setting)...))
			if err != nil {
				t.Fatalf("as %s: %v", u.Username, err)
			}
			if !strings.Contains(out, "--- PASS: TestRootless ") {
				t.Error("it did not run")
			}
		})
	}
}

// ownCopy is the command that runs this test in the setting.
func ownCopy(t *testing.T, setting string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"env", userVariable + "=" + setting, binariesVariable + "=" + filepath.Dir(shimBinary),
		self, "-test.v", "-test.run", "^TestRootless$"}
}

// asUser runs a command in a delegated unit of the user's systemd, and returns what it prints.
func asUser(t *testing.T, u *user.User, command []string) (string, error) {
	t.Helper()
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	run := "/run/user/" + u.Uid
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-run", append([]string{"--user", "--quiet", "--collect", "--wait",
		"--pipe", "--property=Delegate=yes", "--working-directory=/tmp", "--setenv=PATH", "--setenv=XDG_RUNTIME_DIR",
		"--setenv=DBUS_SESSION_BUS_ADDRESS", "--"}, command...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + u.HomeDir, "XDG_RUNTIME_DIR=" + run,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=" + run + "/bus"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	var out strings.Builder
	cmd.Stdout = io.MultiWriter(&out, t.Output())
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	return out.String(), err
}

// lifeWithoutRoot is what the user's copy does: three containers of one shim, from creation to deletion.
func lifeWithoutRoot(t *testing.T, setting string) {
	parent := delegated(t)
	l := newLab(t, labConfig{bundle: withoutRoot(setting, "c1", sleeper()), parent: parent, options: &options.Options{
		SystemdCgroup: setting == "systemd",
		Root:          filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "runc"),
	}})
	l.withoutSocketDir()
	l.mountsWithoutRoot(setting)
	l.runWithoutRoot()
	l.bundle("c2", withoutRoot(setting, "c2", client.BundleConfig{Args: strings.Fields(glutton)}))
	l.run("c2", nil)
	if got := l.wait("c2", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if r := l.exitRecord("c2"); r.Cause != "oom" || r.OOMLimit != oom.Own {
		t.Errorf("the record is %+v", r)
	}
	l.mustDelete("c2", "")
	l.bundle("c3", withoutRoot(setting, "c3", onTTY("stty size; exec cat")))
	tty := l.io("c3", client.IOConfig{Stdin: true, Terminal: true})
	l.mustCreate("c3", tty)
	if err := l.resize("c3", "", 123, 45); err != nil {
		t.Error(err)
	}
	l.mustStart("c3", "")
	if err := tty.Out.WaitFor(within(t), "45 123\r\n"); err != nil {
		t.Error(err)
	}
	l.finish("c3")
	for id, want := range map[string]int{"c1": 1, "c2": 1, "c3": 0} {
		l.event(client.Deletes(id, ""))
		told := func(e client.Event) bool { return e.Topic == "/tasks/oom" && e.Task() == id }
		if got := count(l.Events.All(), told); got != want {
			t.Errorf("%d OOM kills of %s told, want %d", got, id, want)
		}
	}
}

// withoutRoot is the bundle of a container of an ordinary user, with a limit and with a cgroup
// namespace, as managers ask for in version 2.
func withoutRoot(setting, id string, cfg client.BundleConfig) client.BundleConfig {
	cfg.MemoryLimit = memoryLimit
	if setting == "systemd" {
		cfg.CgroupsPath = "user.slice:" + unitPrefix + ":" + id
	}
	cfg.Edit = func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		if setting == "namespace" {
			return
		}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = idRanges(os.Geteuid(), "/etc/subuid")
		s.Linux.GIDMappings = idRanges(os.Getegid(), "/etc/subgid")
	}
	return cfg
}

// idRanges maps root to the user and all others to the range that the user has in the file.
func idRanges(own int, file string) []specs.LinuxIDMapping {
	all := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(own), Size: 1}}
	content, err := os.ReadFile(file)
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(content)) {
		var first, size uint32
		rest, ours := strings.CutPrefix(line, testUser+":")
		if n, _ := fmt.Sscanf(rest, "%d:%d", &first, &size); ours && n == 2 {
			return append(all, specs.LinuxIDMapping{ContainerID: 1, HostID: first, Size: size})
		}
	}
	return all
}

// delegated returns the path of the group that was delegated to us, and makes it fit for groups of
// containers: it may have no process of its own.
func delegated(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(content)), "::")
	dir := filepath.Join("/sys/fs/cgroup", path)
	if err := os.Mkdir(filepath.Join(dir, "test"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "test", "cgroup.procs"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids"), 0); err != nil {
		t.Fatal(err)
	}
	return path
}

// withoutSocketDir starts a shim whose manager names no directory for its socket.
func (l *lab) withoutSocketDir() {
	l.t.Helper()
	cfg := l.Config
	cfg.ID, cfg.SocketDir = "stray", ""
	if _, err := client.Start(within(l.t), cfg); err == nil || !strings.Contains(err.Error(), "/run/containerd: permission denied; choose") {
		l.t.Errorf("the usual directory is root's, and the start says: %v", err)
	}
}

// mountsWithoutRoot has the shim mount the rootfs: it can in a user namespace, and says so where not.
func (l *lab) mountsWithoutRoot(setting string) {
	l.t.Helper()
	if setting != "namespace" {
		r := l.createRequest("c1", nil)
		r.Rootfs = []*types.Mount{{Type: "bind", Source: "/usr", Options: []string{"bind"}}}
		if _, err := l.Create(within(l.t), r); err == nil || !strings.Contains(err.Error(), "CAP_SYS_ADMIN in the user namespace") {
			l.t.Errorf("a mount without the right to: %v", err)
		}
		l.mustCreate("c1", nil)
		return
	}
	source := l.rootfsElsewhere("c1")
	upper, work := filepath.Join(l.dir, "upper"), filepath.Join(l.dir, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
	r := l.createRequest("c1", nil)
	r.Rootfs = []*types.Mount{{Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + source, "upperdir=" + upper, "workdir=" + work}}}
	if _, err := l.Create(within(l.t), r); err != nil {
		l.t.Fatal(err)
	}
}

// runWithoutRoot is the life of the created container c1, whose exec is killed for want of memory.
func (l *lab) runWithoutRoot() {
	l.t.Helper()
	l.mustStart("c1", "")
	if _, limit := l.memory("c1"); limit != memoryLimit {
		l.t.Errorf("the limit is %d", limit)
	}
	l.update("c1", `{"memory":{"limit":`+fmt.Sprint(memoryLimit-(4<<20))+`}}`)
	if _, limit := l.memory("c1"); limit != memoryLimit-(4<<20) {
		l.t.Errorf("the new limit is %d", limit)
	}
	l.runExec("c1", "e1", sh("exit 6"))
	if got := l.wait("c1", "e1"); got != 6 {
		l.t.Errorf("the exec ended with %d", got)
	}
	l.mustDelete("c1", "e1")
	other := sh("trap '' TERM; sleep 1000 & wait; sleep 1000")
	other.UID = 1000
	l.runExec("c1", "e2", other)
	l.eventually("all are listed", func() bool { return len(l.pids("c1")) == 3 })
	l.pause("c1")
	if got := l.status("c1", ""); got != tasktypes.Status_PAUSED {
		l.t.Errorf("it is %s", got)
	}
	if _, err := l.Resume(within(l.t), &task.ResumeRequest{ID: "c1"}); err != nil {
		l.t.Error(err)
	}
	l.runExec("c1", "e3", client.BundleConfig{Args: strings.Fields(glutton)})
	if got := l.wait("c1", "e3"); got != 137 {
		l.t.Errorf("the exec ended with %d", got)
	}
	l.mustDelete("c1", "e3")
	if kills, _ := l.memory("c1"); kills != 1 {
		l.t.Errorf("statistics tell of %d kills", kills)
	}
	// The exec of another uid goes with the container.
	l.kill("c1", "", 9)
	if got := l.wait("c1", "e2"); got != 137 {
		l.t.Errorf("the exec of another user ended with %d", got)
	}
	l.mustDelete("c1", "e2")
	if got := l.wait("c1", ""); got != 137 {
		l.t.Errorf("exit status %d", got)
	}
	if r := l.exitRecord("c1"); r.Cause != "request" || r.OOMLimit != oom.Own {
		l.t.Errorf("the record is %+v", r)
	}
	l.mustDelete("c1", "")
}

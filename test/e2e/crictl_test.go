package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// crictl is what an administrator types on a node of Kubernetes.
type crictl struct {
	*containerd
	path string
}

// run returns what crictl prints, and its exit status.
func (c *crictl) run(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.path, append([]string{
		"--config", filepath.Join(c.dir, "crictl.yaml"), "--runtime-endpoint", "unix://" + c.socket, "--image-endpoint", "unix://" + c.socket,
	}, args...)...)
	cmd.Env = environment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("crictl %q: %v, %v; %s%s", args, err, ctx.Err(), &stdout, &stderr)
	}
	return result{strings.TrimSpace(stdout.String()), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok is run for what has to succeed.
func (c *crictl) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := c.run(t, args...)
	if r.Code != 0 {
		t.Fatalf("crictl %q: %+v", args, r)
	}
	return r.Stdout
}

// file writes a configuration and returns its path.
func (c *crictl) file(t *testing.T, name, format string, args ...any) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is typed on a node, from the first pod to the last, with a restart of containerd in between.
func TestCrictl(t *testing.T) {
	if upstream {
		t.Skip("shows what ours does")
	}
	dir, err := output("../build-crictl")
	if err != nil {
		t.Skipf("crictl cannot be built: %v", err)
	}
	c := &crictl{launch(t, "2.4", withCRI), filepath.Join(dir, "crictl")}
	c.file(t, "crictl.yaml", "timeout: 20\n")
	(&kubelet{containerd: c.containerd, api: cri.NewRuntimeServiceClient(c.conn)}).ready(t)
	pod := c.file(t, "pod.json", `{
  "metadata": {"name": "pod", "namespace": "default", "uid": "u1"},
  "log_directory": %q,
  "linux": {"cgroup_parent": "/%s", "security_context": {"namespace_options": {"network": 2}}}
}`, filepath.Join(c.dir, "logs"), c.namespace)
	container := func(name, script string) string {
		return c.file(t, name+".json", `{
  "metadata": {"name": %q},
  "image": {"image": %q},
  "command": ["/bin/sh", "-c", %q],
  "log_path": %q
}`, name, image, script, name+".log")
	}
	id := c.ok(t, "runp", pod)
	defer func() {
		c.ok(t, "stopp", id)
		c.ok(t, "rmp", id)
		if left := c.ok(t, "pods", "--quiet"); left != "" {
			t.Errorf("pods are left: %s", left)
		}
	}()
	start := func(name, script string) string {
		made := c.ok(t, "create", id, container(name, script), pod)
		c.ok(t, "start", made)
		return made
	}
	state := func(id, want string) {
		t.Helper()
		eventually(t, func() error {
			got := c.ok(t, "inspect", "--output", "go-template", "--template", "{{.status.state}} {{.status.exitCode}}", id)
			if got != want {
				return fmt.Errorf("crictl sees %q, want %q", got, want)
			}
			return nil
		})
	}

	short := start("short", "echo hello; exit 3")
	state(short, "CONTAINER_EXITED 3")
	if got := c.ok(t, "logs", short); got != "hello" {
		t.Errorf("its log is %q", got)
	}
	long := start("long", "while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 9")
	if got := c.ok(t, "exec", "--sync", long, "/bin/echo", "more"); got != "more" {
		t.Errorf("the exec said %q", got)
	}
	if r := c.run(t, "exec", "--sync", long, "/bin/sh", "-c", "exit 4"); r.Code == 0 || !strings.Contains(r.Stderr, "exited with 4") {
		t.Errorf("exec: %+v", r)
	}
	if got := c.ok(t, "stats", "--output", "json", long); !strings.Contains(got, `"workingSetBytes"`) {
		t.Errorf("stats: %s", got)
	}
	pid := c.task(t, long).pid
	c.kill(t)
	touch(t, pid, "/tmp/stop")
	eventually(t, func() error {
		if alive(pid) {
			return fmt.Errorf("init %d is alive", pid)
		}
		return nil
	})
	c.start(t)
	state(long, "CONTAINER_EXITED 9")
	c.ok(t, "rm", short)
	c.ok(t, "rm", long)
}

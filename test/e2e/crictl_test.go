package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// file writes a configuration and returns its path.
func (c *containerd) file(t *testing.T, name, format string, args ...any) string {
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
	path := build(t, "crictl")
	c := launch(t, "2.4", withCRI)
	o := &tool{"crictl", []string{
		path, "--config", c.file(t, "crictl.yaml", "timeout: 20\n"),
		"--runtime-endpoint", "unix://" + c.socket, "--image-endpoint", "unix://" + c.socket,
	}, nil}
	(&kubelet{containerd: c, api: cri.NewRuntimeServiceClient(c.conn)}).ready(t)
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
	id := o.ok(t, "runp", pod)
	defer func() {
		o.ok(t, "stopp", id)
		o.ok(t, "rmp", id)
		if left := o.ok(t, "pods", "--quiet"); left != "" {
			t.Errorf("pods are left: %s", left)
		}
	}()
	start := func(name, script string) string {
		made := o.ok(t, "create", id, container(name, script), pod)
		o.ok(t, "start", made)
		return made
	}
	state := func(id, want string) {
		t.Helper()
		eventually(t, func() error {
			got := o.ok(t, "inspect", "--output", "go-template", "--template", "{{.status.state}} {{.status.exitCode}}", id)
			if got != want {
				return fmt.Errorf("crictl sees %q, want %q", got, want)
			}
			return nil
		})
	}

	short := start("short", "echo hello; exit 3")
	state(short, "CONTAINER_EXITED 3")
	if got := o.ok(t, "logs", short); got != "hello" {
		t.Errorf("its log is %q", got)
	}
	long := start("long", "while [ ! -e /tmp/stop ]; do sleep 0.1; done; exit 9")
	if got := o.ok(t, "exec", "--sync", long, "/bin/echo", "more"); got != "more" {
		t.Errorf("the exec said %q", got)
	}
	if r := o.run(t, "exec", "--sync", long, "/bin/sh", "-c", "exit 4"); r.Code == 0 || !strings.Contains(r.Stderr, "exited with 4") {
		t.Errorf("exec: %+v", r)
	}
	if got := o.ok(t, "stats", "--output", "json", long); !strings.Contains(got, `"workingSetBytes"`) {
		t.Errorf("stats: %s", got)
	}
	pid := c.task(t, long).pid
	c.whileAway(t, pid, "/tmp/stop")
	state(long, "CONTAINER_EXITED 9")
	o.ok(t, "rm", short)
	o.ok(t, "rm", long)
}

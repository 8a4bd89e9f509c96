package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
)

// TestCrun uses crun in place of runc. Debian 12's crun refuses hybrid cgroup hierarchies, hence
// the mount namespace.
func TestCrun(t *testing.T) {
	c := launch(t, "1.6", isolate)
	flags := []string{"--runtime", c.standard().flag, "--runc-binary", "crun"}

	id := c.id()
	got := c.ctr(t, append(append([]string{"run", "--rm"}, flags...), image, id,
		"sh", "-c", "echo out; echo err >&2; exit 7")...)
	if want := (result{"out\n", "err\n", 7}); got != want {
		t.Errorf("run: got %+v, want %+v", got, want)
	}
	c.events.await(t, id, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")

	sized := `until s=$(stty size 2>/dev/null); [ "$s" ]; do sleep 0.1; done; echo $s; exit 5`
	p := c.onTerminal(t, 33, 101,
		append(append([]string{"run", "--rm", "-t"}, flags...), image, c.id(), "sh", "-c", sized)...)
	p.await(t, "33 101\n")
	if got := p.wait(t); got != 5 {
		t.Errorf("run -t ended with %d, want 5", got)
	}

	id, _ = c.detached(t, flags, "sleep", "1000")
	checkExec(t, c, id)
	c.ok(t, "task", "pause", id)
	if got := c.task(t, id).status; got != "PAUSED" {
		t.Errorf("status after pause: got %s, want PAUSED", got)
	}
	c.ok(t, "task", "resume", id)
	c.ok(t, "task", "kill", "-s", "KILL", id)
	if got := c.events.exit(t, id, id).ExitStatus; got != 137 {
		t.Errorf("exit status: got %d, want 137", got)
	}
	c.remove(t, id)

	if got := c.ctr(t, append(append([]string{"run", "--rm"}, flags...), image, c.id(),
		"no-such-program")...); got.Code == 0 || !strings.Contains(got.Stderr, "no-such-program") {
		t.Errorf("missing entrypoint: got %+v; want a failure that names it", got)
	}
}

// checkExec runs another process in a container.
func checkExec(t *testing.T, c *containerd, id string) {
	t.Helper()
	got := c.ctrWith(t, "in", "task", "exec", "--exec-id", "e1", id, "sh", "-c", "cat; exit 3")
	if want := (result{"in", "", 3}); got != want {
		t.Errorf("exec: got %+v, want %+v", got, want)
	}
}

// TestCrunUnderNewContainerd gives ctr a whole config.json: Debian 12's crun also refuses the
// ociVersion that containerd 2 writes into those it makes itself.
func TestCrunUnderNewContainerd(t *testing.T) {
	c := launch(t, "2.4", isolate)
	bundle := filepath.Join(c.dir, "bundle")
	err := client.NewBundle(bundle, client.BundleConfig{
		Args: []string{"sh", "-c", "trap 'exit 42' TERM; echo up; while :; do sleep 0.1; done"},
		Edit: func(s *specs.Spec) { s.Root.Path = filepath.Join(bundle, "rootfs") },
	})
	if err != nil {
		t.Fatal(err)
	}
	id := c.id()
	c.ok(t, "run", "-d", "--runtime", c.standard().flag, "--runc-binary", "crun",
		"--log-uri", "file://"+filepath.Join(c.dir, "crun.log"),
		"--config", filepath.Join(bundle, "config.json"), id)
	c.logs(t, "crun.log", "up\n")
	checkExec(t, c, id)
	c.ok(t, "task", "kill", id)
	if got := c.events.exit(t, id, id).ExitStatus; got != 42 {
		t.Errorf("exit status: got %d, want 42", got)
	}
	c.status(t, id, "STOPPED")
	c.delete(t, id, 42)
}

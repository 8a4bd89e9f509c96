package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// nerdctl is the command line of that name, for one containerd.
type nerdctl struct{ tool }

// becomes waits until inspect tells the state and the exit status.
func (n *nerdctl) becomes(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, func() error {
		got := n.ok(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", id)
		if got != want {
			return fmt.Errorf("nerdctl sees %q, want %q", got, want)
		}
		return nil
	})
}

// nerdctl has its own program read the output, as a logger of the shim, and stops that when Wait
// returns: all has to be in the log by then.
func TestNerdctl(t *testing.T) {
	if upstream {
		t.Skip("shows what ours does")
	}
	path := build(t, "nerdctl")
	c := launch(t, "2.4")
	// None of its files is outside of containerd's directory.
	n := &nerdctl{tool{"nerdctl", []string{
		path, "--address", c.socket, "--namespace", c.tasks, "--data-root", filepath.Join(c.dir, "nerdctl"),
		"--cni-netconfpath", filepath.Join(c.dir, "cni"), "--cgroup-manager", "cgroupfs", "--hosts-dir", c.dir,
	}, []string{"NERDCTL_TOML=" + filepath.Join(c.dir, "none.toml")}}}
	run := func(more ...string) []string {
		return append([]string{"run", "--network", "none", "--runtime", "io.containerd.holdfast.v2", "--cgroup-parent", "/" + c.namespace}, more...)
	}
	detached := func(t *testing.T, more ...string) string {
		t.Helper()
		return n.ok(t, run(append([]string{"--detach"}, more...)...)...)
	}

	t.Run("life", func(t *testing.T) {
		if r := n.run(t, run("--rm", image, "/bin/sh", "-c", "echo hello; exit 7")...); r.Code != 7 || r.Stdout != "hello" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("log of a short life", func(t *testing.T) {
		for range 10 {
			id := detached(t, image, "/bin/sh", "-c", "seq 1000; echo last")
			n.becomes(t, id, "exited 0")
			if lines := strings.Split(n.ok(t, "logs", id), "\n"); len(lines) != 1001 || lines[1000] != "last" {
				t.Errorf("its log has %d lines, the last is %q", len(lines), lines[len(lines)-1])
			}
			n.ok(t, "rm", id)
		}
	})
	t.Run("exec, pause, stats, kill", func(t *testing.T) {
		id := detached(t, image, "/bin/sleep", "1000")
		// It has a status of its own for those that failed.
		if r := n.run(t, "exec", id, "/bin/sh", "-c", "echo more; exit 3"); r.Code != 1 || r.Stdout != "more" || !strings.Contains(r.Stderr, "exit code 3") {
			t.Errorf("%+v", r)
		}
		n.ok(t, "pause", id)
		n.becomes(t, id, "paused 0")
		n.ok(t, "unpause", id)
		if got := n.ok(t, "stats", "--no-stream", "--format", "{{.MemUsage}}", id); !strings.Contains(got, "iB / ") || strings.HasPrefix(got, "0B") {
			t.Errorf("it uses %q", got)
		}
		if got := n.ok(t, "top", id); !strings.Contains(got, "sleep 1000") {
			t.Errorf("top: %s", got)
		}
		n.ok(t, "kill", id)
		n.becomes(t, id, "exited 137")
		n.ok(t, "rm", id)
	})
	t.Run("start again", func(t *testing.T) {
		id := detached(t, image, "/bin/sh", "-c", "echo once; exit 4")
		n.becomes(t, id, "exited 4")
		n.ok(t, "start", id)
		eventually(t, func() error {
			if got := n.ok(t, "logs", id); got != "once\nonce" {
				return fmt.Errorf("the log is %q", got)
			}
			return nil
		})
		n.becomes(t, id, "exited 4")
		n.ok(t, "rm", id)
	})
	t.Run("exit while containerd is away", func(t *testing.T) {
		id := detached(t, image, "/bin/sh", "-c", "while [ ! -e /stop ]; do sleep 0.1; done; echo bye; exit 9")
		pid := 0
		if _, err := fmt.Sscan(n.ok(t, "inspect", "--format", "{{.State.Pid}}", id), &pid); err != nil {
			t.Fatal(err)
		}
		c.whileAway(t, pid, "/stop")
		n.becomes(t, id, "exited 9")
		if got := n.ok(t, "logs", id); got != "bye" {
			t.Errorf("its log: %q", got)
		}
		n.ok(t, "rm", id)
	})
	if entries, err := os.ReadDir(filepath.Join(c.dir, "nerdctl")); err != nil || len(entries) == 0 {
		t.Errorf("nerdctl has kept its files elsewhere: %v, %v", entries, err)
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// talker is a container that prints a growing number every tenth of a second, and ends with 9
// when it finds a file /stop.
const talker = `i=0
while [ ! -e /stop ]; do i=$((i+1)); echo "line $i"; sleep 0.1; done
echo last; exit 9`

// TestRestart ends containerd while containers run, and starts it again.
func TestRestart(t *testing.T) {
	for name, end := range map[string]func(*containerd, *testing.T){
		"stopped": (*containerd).stop,
		"killed":  (*containerd).kill,
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, version string) {
				c := launch(t, version)
				for _, r := range c.runtimes() {
					t.Run(r.name, func(t *testing.T) { testRestart(t, c, r, end) })
				}
			})
		})
	}
}

func testRestart(t *testing.T, c *containerd, r runtime, end func(*containerd, *testing.T)) {
	log := filepath.Join(c.dir, "talk")
	_ = os.Remove(log)
	id, pid := c.detached(t, []string{"--runtime", r.flag, "--log-uri", "file://" + log},
		"sh", "-c", talker)
	// A second container whose output goes into FIFOs that ctr attaches to.
	other, otherPid := c.detached(t, []string{"--runtime", r.flag, "--fifo-dir", c.dir + "/fifo"},
		"sh", "-c", "while [ ! -e /stop ]; do sleep 0.1; echo up; done; echo down; exit 8")
	shim := parent(t, pid)
	c.logs(t, "talk", "line 1\n")

	end(c, t)
	before := c.logs(t, "talk", "line")
	next := fmt.Sprintf("line %d\n", strings.Count(before, "\n")+3)
	c.logs(t, "talk", next) // The container talks on while containerd is away.

	c.start(t)
	if got := c.task(t, id); got != (task{pid, "RUNNING"}) {
		t.Fatalf("the task after the restart: %+v; want pid %d, running", got, pid)
	}
	if got := parent(t, pid); got != shim {
		t.Errorf("shim: got %d, want the one from before, %d", got, shim)
	}
	if got := c.ok(t, "task", "exec", "--exec-id", "e1", id, "echo", "here"); got != "here\n" {
		t.Errorf("exec after the restart printed %q", got)
	}
	touch(t, pid, "/stop")
	if got := c.events.exit(t, id, id); got.ExitStatus != 9 || int(got.Pid) != pid {
		t.Errorf("exit event: %v; want status 9 of pid %d", got, pid)
	}
	checkTalk(t, c.logs(t, "talk", "last\n"))
	c.status(t, id, "STOPPED")
	c.delete(t, id, 9)
	testAttach(t, c, other, otherPid)
}

// checkTalk demands that every line of the talker is there, once and in order.
func checkTalk(t *testing.T, log string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i, line := range lines[:len(lines)-1] {
		if want := fmt.Sprintf("line %d", i+1); line != want {
			t.Fatalf("line %d of the log: got %q, want %q", i+1, line, want)
		}
	}
}

// testAttach attaches to a container from before the restart and lets it end. ctr then deletes the
// task by itself.
func testAttach(t *testing.T, c *containerd, id string, pid int) {
	t.Helper()
	p := c.onTerminal(t, 24, 80, "task", "attach", id)
	p.await(t, "up\n")
	touch(t, pid, "/stop")
	p.await(t, "down\n")
	if got := p.wait(t); got != 8 {
		t.Errorf("task attach ended with %d, want 8", got)
	}
	c.ok(t, "container", "rm", id)
}

// TestExitWhileAway lets a container end while there is no containerd. Its exit status must still
// be there when containerd comes back (contract 3.8, 11.1).
func TestExitWhileAway(t *testing.T) {
	if upstream {
		t.Skip("upstream's shim loses the exit status from containerd 1.7 on")
	}
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		for _, r := range c.runtimes() {
			t.Run(r.name, func(t *testing.T) { testExitWhileAway(t, c, r) })
		}
	})
}

func testExitWhileAway(t *testing.T, c *containerd, r runtime) {
	id, pid := c.detached(t, []string{"--runtime", r.flag}, "sh", "-c",
		"while [ ! -e /stop ]; do sleep 0.1; done; exit 9")
	c.kill(t)
	touch(t, pid, "/stop")
	eventually(t, func() error {
		if alive(pid) {
			return fmt.Errorf("init %d is alive", pid)
		}
		return nil
	})
	c.start(t)
	if got := c.task(t, id); got != (task{pid, "STOPPED"}) {
		t.Errorf("the task after the restart: %+v; want pid %d, stopped", got, pid)
	}
	c.delete(t, id, 9)
}

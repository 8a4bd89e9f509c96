package e2e

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// TestShimKilled kills a shim. Containerd must find out what became of its containers, and clean
// up after it.
func TestShimKilled(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version, crashes)
		for _, r := range c.runtimes() {
			t.Run(r.name, func(t *testing.T) {
				t.Run("one container", func(t *testing.T) { testShimKilled(t, c, r) })
				t.Run("pod", func(t *testing.T) { testShimOfPodKilled(t, c, r) })
			})
		}
	})
}

func testShimKilled(t *testing.T, c *containerd, r runtime) {
	id := c.id()
	p := c.onTerminal(t, 24, 80, "run", "--runtime", r.flag, image, id,
		"sh", "-c", "echo up; while :; do sleep 0.1; done")
	p.await(t, "up\n")
	pid := c.task(t, id).pid
	killShim(t, parent(t, pid))

	exit := c.events.exit(t, id, id)
	if exit.ExitStatus != 137 || int(exit.Pid) != pid {
		t.Errorf("exit event: %v; want status 137 of pid %d", exit, pid)
	}
	c.events.await(t, id, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
	c.gone(t, id, pid)
	if got := p.wait(t); got == 0 {
		t.Error("ctr run ended with 0 although its shim was killed")
	}
	c.ok(t, "container", "rm", id)
}

// testShimOfPodKilled kills a shim with two containers, of which one has ended before.
func testShimOfPodKilled(t *testing.T, c *containerd, r runtime) {
	ended := c.id() // also the group's name, as a pod's first container lends the pod its id
	flags := []string{"--runtime", r.flag, "--annotation", "io.containerd.runc.v2.group=" + ended}
	line := append([]string{"run", "-d"}, flags...)
	c.ok(t, append(line, image, ended, "sh", "-c", "exit 43")...)
	exit := c.events.exit(t, ended, ended)
	if exit.ExitStatus != 43 {
		t.Fatalf("exit status: got %d, want 43", exit.ExitStatus)
	}
	runs, pid := c.detached(t, flags, "sleep", "1000")
	killShim(t, parent(t, pid))

	if got := c.events.exit(t, runs, runs); got.ExitStatus != 137 || int(got.Pid) != pid {
		t.Errorf("exit event: %v; want status 137 of pid %d", got, pid)
	}
	// Containerd has the status of the other one from the record that the shim left.
	if got := c.events.deleted(t, ended).ExitStatus; got != 43 && !upstream {
		t.Errorf("status in the delete event of the one that had ended: got %d, want 43", got)
	}
	c.gone(t, runs, pid)
	c.gone(t, ended, int(exit.Pid))
	c.ok(t, "container", "rm", runs)
	c.ok(t, "container", "rm", ended)
}

func killShim(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// gone waits until nothing is left of a task but the container's record.
func (c *containerd) gone(t *testing.T, id string, pid int) {
	t.Helper()
	eventually(t, func() error {
		if alive(pid) {
			return fmt.Errorf("init %d of %s is alive", pid, id)
		}
		if got := c.task(t, id); got != (task{}) {
			return fmt.Errorf("task %s is still listed: %+v", id, got)
		}
		if _, err := os.Stat(c.bundle(id)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("bundle %s is still there: %v", c.bundle(id), err)
		}
		return nil
	})
}

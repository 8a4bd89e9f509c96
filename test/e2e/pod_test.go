package e2e

import (
	"fmt"
	"slices"
	"testing"
)

// TestPod runs three containers that name one group in an annotation, as CRI does for a pod: the
// group has the id of the first one.
func TestPod(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		for _, r := range c.runtimes() {
			t.Run(r.name, func(t *testing.T) { testPod(t, c, r) })
		}
	})
}

func testPod(t *testing.T, c *containerd, r runtime) {
	flags := []string{"--runtime", r.flag}
	first, _ := c.detached(t, flags, "sleep", "1000")
	c.remove(t, first) // A container of another group, and its shim, end before.

	shim := 0
	pids := make(map[string]int)
	ids := []string{c.id(), c.id(), c.id()}
	for _, id := range ids {
		c.ok(t, "run", "-d", "--runtime", r.flag,
			"--annotation", "io.containerd.runc.v2.group="+ids[0], image, id,
			"sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.1; done")
		pid := c.task(t, id).pid
		pids[id] = pid
		switch ppid := parent(t, pid); {
		case shim == 0:
			shim = ppid
		case shim != ppid:
			t.Errorf("container %s has shim %d, the first one has %d", id, ppid, shim)
		}
	}
	if got := c.shims(); !slices.Equal(got, []int{shim}) {
		t.Errorf("shims: got %v, want only %d", got, shim)
	}

	// The container that the shim was started for goes first; the others must not notice.
	for _, id := range ids {
		for other, pid := range pids {
			if got := c.task(t, other); got != (task{pid, "RUNNING"}) {
				t.Errorf("task %s: got %+v, want pid %d, running", other, got, pid)
			}
		}
		c.ok(t, "task", "kill", id)
		if got := c.events.exit(t, id, id).ExitStatus; got != 6 {
			t.Errorf("exit status of %s: got %d, want 6", id, got)
		}
		c.status(t, id, "STOPPED")
		c.delete(t, id, 6)
		delete(pids, id)
		if len(pids) > 0 && !alive(shim) {
			t.Fatalf("the shim ended while %d of its containers live", len(pids))
		}
	}
	eventually(t, func() error {
		if alive(shim) {
			return fmt.Errorf("shim %d outlives its last container", shim)
		}
		return nil
	})
}

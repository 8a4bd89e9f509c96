package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/internal/client"
)

func TestBareContainersLiveAndExecute(t *testing.T) {
	b := &bench{dir: t.TempDir(), runtime: "runc"}
	took, err := b.bareLife(t.Context(), filepath.Join(b.dir, "life"))
	if err != nil {
		t.Fatal(err)
	}
	for _, phase := range []int{create, run, remove} {
		if took[phase] <= 0 {
			t.Errorf("phase %d: %v", phase, took[phase])
		}
	}
	c, err := b.newBare(filepath.Join(b.dir, "execs"), idler())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.remove(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := c.call(t.Context(), "start", c.id); err != nil {
		t.Fatal(err)
	}
	process, err := c.writeProcess(client.BundleConfig{Args: []string{"sleep", "0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	spent, err := clock(func() error { return c.execute(t.Context(), process, "e") })
	if err != nil || spent < 100*time.Millisecond {
		t.Errorf("slept for %v, %v", spent, err)
	}
}

// The time that a child has waited for is not its own: else the runtime's would be the shim's.
func TestLastTimeIsOfOneProcess(t *testing.T) {
	const busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
	times := map[string]time.Duration{}
	for name, script := range map[string]string{"own": busy, "of a child": "(" + busy + "); wait; :"} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		spent, err := lastTime(cmd.Process.Pid)
		if err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		whole := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if whole < 20*time.Millisecond {
			t.Errorf("%s: the script takes %v only", name, whole)
		}
		times[name] = spent
	}
	if times["own"] < 3*times["of a child"] {
		t.Errorf("got %v", times)
	}
}

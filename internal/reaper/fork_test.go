package reaper

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A fork is over when its child has surely let go of our files.
func TestForkIsOverWhenItsChildIsInItsProgram(t *testing.T) {
	open := &Fork{done: make(chan struct{})}
	if open.Over() {
		t.Error("one that is under way is over")
	}
	ended := func(pid int, ago time.Duration) *Fork {
		f := &Fork{done: make(chan struct{}), pid: pid, at: time.Now().Add(-ago)}
		close(f.done)
		return f
	}
	if !ended(0, 0).Over() {
		t.Error("one without a child is not over")
	}
	if !ended(1<<22, 0).Over() {
		t.Error("one whose child has been reaped is not over")
	}
	busy := start(t, "while :; do :; done")
	stateIs(t, busy.Pid(), "R")
	if ended(busy.Pid(), 0).Over() {
		t.Error("one whose child may still be on its way is over")
	}
	if !ended(busy.Pid(), 2*forkLimit).Over() {
		t.Error("it is not over after long")
	}
	if err := busy.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stateIs(t, busy.Pid(), "T")
	if !ended(busy.Pid(), 0).Over() {
		t.Error("one whose child has been stopped is not over")
	}
	idle := start(t, "exec sleep 1000")
	stateIs(t, idle.Pid(), "S")
	if !ended(idle.Pid(), 0).Over() {
		t.Error("one whose child sleeps is not over")
	}
}

// A child may need its time to let go of our files although ForkExec has returned.
func TestForkingTellsOfThoseThatHaveReturned(t *testing.T) {
	of := func(c *Child) bool {
		return slices.ContainsFunc(Forking(), func(f *Fork) bool { return f.returned() && f.pid == c.Pid() })
	}
	busy := start(t, "while :; do :; done")
	stateIs(t, busy.Pid(), "R")
	if !of(busy) {
		t.Error("a child that may not run its program yet is not told of")
	}
	idle := start(t, "exec sleep 1000")
	stateIs(t, idle.Pid(), "S")
	if of(idle) {
		t.Error("a child that runs its program is told of")
	}
	time.Sleep(forkLimit)
	start(t, "exec sleep 1000")
	table.mu.Lock()
	defer table.mu.Unlock()
	for f := range table.forks {
		if f.returned() && f.pid == busy.Pid() {
			t.Error("an old one is still in the table")
		}
	}
}

// start starts a shell that is killed at the end of the test.
func start(t *testing.T, script string) *Child {
	t.Helper()
	if err := Init(); err != nil {
		t.Fatal(err)
	}
	c, err := Start(&Command{Path: "sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Signal(syscall.SIGKILL) // it may be dead
		<-c.Done()
	})
	return c
}

// stateIs waits until a process is in that state.
func stateIs(t *testing.T, pid int, state string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(stat), ") "+state+" ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("pid %d does not come into state %s: %s", pid, state, stat)
		}
	}
}

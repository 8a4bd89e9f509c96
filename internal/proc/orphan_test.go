package proc

import (
	"slices"
	"syscall"
	"testing"
)

// Those that were stopped are killed, also if they cannot be found any more: a dead parent leaves none
// behind that stands still for ever.
func TestNobodyIsLeftStopped(t *testing.T) {
	pids := script(t, "sleep 1000 & echo $!; wait", 1)
	named(t, pids[1], "sleep")
	looks := 0
	SignalAll(func() []Process {
		if looks++; looks > 2 {
			return nil
		}
		return slices.DeleteFunc(Tree(pids[0]), func(p Process) bool { return p.Pid == pids[0] })
	}, syscall.SIGKILL)
	gone(t, pids[1:])
}

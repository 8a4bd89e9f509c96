package reaper

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// Exit is how a process ended.
type Exit struct {
	Status int            // exit code, or 128 + number of the signal that killed it
	Signal syscall.Signal // 0 unless killed by a signal
	Core   bool           // core dumped
	At     time.Time      // when it was reaped, by the wall clock
}

// Child is a process that is ours to wait for. Its methods may be called concurrently.
type Child struct {
	pid  int
	done chan struct{} // closed by the registry, after exit has been set
	exit Exit
	// thread has started it; 0 if it was adopted.
	thread int
	kill   func(syscall.Signal) error // of a Fake; nil for a real process
}

func newChild(pid int) *Child { return &Child{pid: pid, done: make(chan struct{})} }

// Pid returns the process id. Once Done is closed it may belong to somebody else.
func (c *Child) Pid() int { return c.pid }

// Done is closed when the process has been reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit tells how the process ended. It may be called only after Done is closed.
func (c *Child) Exit() Exit { return c.exit }

// Signal sends sig to this process and to no other: while it has not been reaped its pid cannot
// be given away. After that the error is os.ErrProcessDone. Signal 0 probes.
func (c *Child) Signal(sig syscall.Signal) error { return c.signal(c.pid, sig) }

// SignalGroup is Signal for the whole process group of a process begun with Start.
func (c *Child) SignalGroup(sig syscall.Signal) error { return c.signal(-c.pid, sig) }

func (c *Child) signal(target int, sig syscall.Signal) error {
	table.mu.Lock()
	defer table.mu.Unlock()
	select {
	case <-c.done:
		return os.ErrProcessDone
	default:
	}
	if c.kill != nil {
		return c.kill(sig)
	}
	if err := syscall.Kill(target, sig); err != nil {
		return fmt.Errorf("send %v to pid %d: %w", sig, c.pid, err)
	}
	return nil
}

// Fake returns a Child without a process, for tests, and the function that lets it die. Signals
// reach it and do nothing.
func Fake(pid int) (c *Child, die func(Exit)) {
	c = newChild(pid)
	c.kill = func(syscall.Signal) error { return nil }
	return c, func(exit Exit) {
		table.mu.Lock()
		defer table.mu.Unlock()
		c.exit = exit
		close(c.done)
	}
}

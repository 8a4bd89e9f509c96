package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/cgroup"
	"holdfast/internal/proc"
	"holdfast/internal/reaper"
)

const (
	killSignal = syscall.SIGKILL
	// stuckLimit is how long a killed process may be in uninterruptible sleep until we say so.
	stuckLimit = time.Second
	stuckPause = 10 * time.Millisecond
	// dyingTime is how long one that is not stuck needs to die, mostly.
	dyingTime = 5 * time.Millisecond
)

// signalChild sends sig to a child of ours. That it has died is no error.
func signalChild(child *reaper.Child, sig syscall.Signal) error {
	if err := child.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill sends sig to the process, or with all to every process of the container, and of an exec to all
// that it has begun. It takes no turn and, as long as the process is our child, runs no command, so
// nothing that hangs can delay it. A process that has ended is errdefs.ErrNotFound. One that does not
// die of SIGKILL, because the kernel does not let it go, is errdefs.ErrUnavailable: it will die of it
// when it can.
func (c *Container) Kill(ctx context.Context, exec string, sig syscall.Signal, all bool) error {
	p, err := c.find(exec)
	if err != nil {
		return err
	}
	child := p.alive()
	if child == nil {
		if state := p.current(); exec == "" || state == Created || state == Failed {
			return fmt.Errorf("process not created: %w", errdefs.ErrFailedPrecondition)
		}
		return refuse(p.name, p.current(), Kill)
	}
	p.ask(sig)
	if all && exec == "" {
		limited, cancel := detach(ctx, Kill)
		defer cancel()
		if err := c.killAll(limited, sig); err != nil || sig != killSignal {
			return err
		}
		return heeded("all of "+p.name, child.Done(), c.members)
	}
	reached := 0
	if all {
		reached = signalTree(child, sig)
	}
	if err := c.signal(child, sig); err != nil && (reached == 0 || !errors.Is(err, errdefs.ErrNotFound)) {
		return err
	}
	if sig != killSignal {
		return nil
	}
	if exec == "" {
		c.thaw()
	}
	find := proc.Self
	if all {
		find = proc.Tree
	}
	return heeded(p.name, child.Done(), func() []proc.Process {
		found := find(child.Pid())
		if child.Signal(0) == nil {
			return found
		}
		// Reaped, perhaps before we looked: its pid may be somebody else's.
		return slices.DeleteFunc(found, func(p proc.Process) bool { return p.Pid == child.Pid() })
	})
}

// signalTree sends sig to all that child has begun, and tells how many that reached; with SIGKILL
// child is among them.
func signalTree(child *reaper.Child, sig syscall.Signal) int {
	find := func() []proc.Process {
		tree := proc.Tree(child.Pid())
		if child.Signal(0) != nil {
			return nil // reaped, perhaps before we looked: its pid may be somebody else's
		}
		if sig != killSignal {
			tree = slices.DeleteFunc(tree, func(p proc.Process) bool { return p.Pid == child.Pid() })
		}
		return tree
	}
	return proc.SignalAll(find, sig)
}

// heeded returns an error if a process that was sent SIGKILL does not die of it, since it is in
// uninterruptible sleep. It waits only for such a one, for a second: most sleeps are short. That the
// first of them is dead saves time.
func heeded(who string, dead <-chan struct{}, killed func() []proc.Process) error {
	select {
	case <-dead:
	case <-time.After(dyingTime):
	}
	for end := time.Now().Add(stuckLimit); ; time.Sleep(stuckPause) {
		stuck := slices.DeleteFunc(killed(), func(p proc.Process) bool {
			_, is := p.Stuck()
			return !is
		})
		if len(stuck) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("cannot kill %s: %s; free what it waits for, it dies then: %w",
				who, proc.Describe(stuck), errdefs.ErrUnavailable)
		}
	}
}

// members returns the processes of the container's control group.
func (c *Container) members() (members []proc.Process) {
	pids, _ := c.Pids(context.Background())
	for _, pid := range pids {
		if p, ok := proc.Read(pid); ok {
			members = append(members, p)
		}
	}
	return members
}

func (c *Container) signal(child *reaper.Child, sig syscall.Signal) error {
	err := child.Signal(sig)
	switch {
	case errors.Is(err, os.ErrProcessDone), errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("cannot send signal %d: the kernel knows no such signal: %w", sig, errdefs.ErrInvalidArgument)
	}
	return err
}

// thaw lets a killed but frozen process die. A container may have been frozen behind our back; one
// that has no control group of its own cannot be. The signal is sent by now, so Kill has not failed
// if this does.
func (c *Container) thaw() {
	group := c.cgroup()
	if group == nil {
		return
	}
	err := group.Thaw()
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, cgroup.ErrShared) {
		c.cfg.Log.Warn("killed task not thawed; it dies when it is", "task", c.cfg.ID, "err", err)
	}
}

// killAll sends sig to all processes of the container: by its control group, or where it has
// none of its own by the runtime. With nobody left it succeeds.
func (c *Container) killAll(ctx context.Context, sig syscall.Signal) error {
	var err error
	if group := c.cgroup(); group != nil {
		if err = group.Signal(sig); err == nil || errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
	}
	err2 := c.cfg.Runtime.Kill(ctx, sig, true)
	if err2 == nil || errors.Is(err2, errdefs.ErrNotFound) {
		return nil
	}
	if err == nil {
		return err2
	}
	return fmt.Errorf("%w; and the runtime: %w", err, err2)
}

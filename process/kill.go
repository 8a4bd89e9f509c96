package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"

	"holdfast/internal/cgroup"
	"holdfast/internal/reaper"
)

const killSignal = syscall.SIGKILL

// signalChild sends sig to a child of ours. That it has died is no error.
func signalChild(child *reaper.Child, sig syscall.Signal) error {
	if err := child.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill sends sig to the process, or with all to every process of the container. It takes no turn
// and, as long as the process is our child, runs no command, so nothing that hangs can delay it.
// A process that has ended is errdefs.ErrNotFound.
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
		return c.killAll(limited, sig)
	}
	if err := c.signal(child, sig); err != nil {
		return err
	}
	if sig == killSignal && exec == "" {
		c.thaw()
	}
	return nil
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
	return errors.Join(err, err2)
}

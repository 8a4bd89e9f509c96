package process

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/mount"
	"holdfast/internal/proc"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
	"holdfast/internal/wire"
	"holdfast/runc"
)

// startInit lets the init process run the user's program, or restores it from its checkpoint.
func (c *Container) startInit(ctx context.Context) (int, error) {
	run := func() error { return c.startCreated(ctx) }
	commit := func() {
		c.cfg.Events.Append(&api.TaskStart{ContainerID: c.cfg.ID, Pid: c.pid()})
		c.reach(recorder.StartLogged)
	}
	if c.cfg.Checkpoint != "" {
		run = func() error { return c.restore(ctx) }
		started := commit
		commit = func() {
			started()
			c.begin(c.init.alive())
		}
	}
	if err := c.init.do(ctx, Start, run, commit); err != nil {
		return 0, err
	}
	return c.init.info().Pid, nil
}

// startCreated has the runtime start the created init process. The turn is ours. The runtime's hooks
// may take as long as they like while the init process lives.
func (c *Container) startCreated(ctx context.Context) error {
	limited, cancel := c.whileAlive(ctx, Start)
	defer cancel()
	c.reach(recorder.StartBegun)
	err := c.cfg.Runtime.Start(limited)
	c.reach(recorder.StartRan)
	return err
}

func (c *Container) pid() uint32 { return uint32(c.init.info().Pid) } //nolint:gosec // positive, below 2^22

// restore brings the init process back from its checkpoint. The turn is ours.
func (c *Container) restore(ctx context.Context) error {
	limited, cancel := detach(ctx, Checkpoint)
	defer cancel()
	c.onDelete(cancel)
	defer c.onDelete(nil)
	c.reach(recorder.StartBegun)
	work := c.cfg.CRIUWork
	if work == "" {
		work = filepath.Join(c.cfg.Bundle, "work")
	}
	io := c.init.stdio()
	child, console, err := c.cfg.Runtime.Restore(limited, runc.RestoreConfig{
		Streams: streamsOf(io), Console: c.cfg.Terminal, NoPivot: c.cfg.NoPivot,
		Image: c.cfg.Checkpoint, Work: work,
	})
	if err != nil {
		if left := c.removeGroups(ctx, err); left != nil {
			c.cfg.Log.Error("something is left of a failed restore", "task", c.cfg.ID, "err", left)
		}
		return err
	}
	if err := connect(io, console); err != nil {
		err = fmt.Errorf("connect stdio of task %s: %w", c.cfg.ID, err)
		return errors.Join(err, c.cfg.Runtime.Delete(limited, true))
	}
	c.init.born(child)
	c.watchMemory(child)
	c.reach(recorder.StartRan)
	return nil
}

// Pause freezes all processes of the container, or none: it waits for the runtime, and lets go on what
// a runtime that fails has frozen. It lets execs that are being started come up first, for a while:
// what the runtime has put into the container already would be frozen before it is the exec's process,
// and its Start with it.
func (c *Container) Pause(ctx context.Context) error {
	run := func(ctx context.Context) error {
		patient, cancel := context.WithTimeout(ctx, pausePatience)
		defer cancel()
		release, all := c.slots.takeAll(patient)
		defer release()
		if !all {
			c.cfg.Log.Warn("pause waits no longer for execs that are being started; they stand still until the resume",
				"task", c.cfg.ID)
		}
		err := c.cfg.Runtime.Pause(ctx)
		if err != nil {
			c.thaw() // it may have been killed after it had frozen them
		}
		return err
	}
	return c.command(ctx, Pause, run, &api.TaskPaused{ContainerID: c.cfg.ID})
}

// Resume lets the processes of a paused container go on. It waits for the runtime.
func (c *Container) Resume(ctx context.Context) error {
	return c.command(ctx, Resume, c.cfg.Runtime.Resume, &api.TaskResumed{ContainerID: c.cfg.ID})
}

// Update changes the resource limits; resources is JSON of the runtime specification. It waits
// for the runtime.
func (c *Container) Update(ctx context.Context, resources []byte) error {
	run := func(ctx context.Context) error { return c.cfg.Runtime.Update(ctx, resources) }
	return c.command(ctx, Update, run, nil)
}

// Checkpoint writes the container to disk. It waits for the runtime, which may take minutes.
func (c *Container) Checkpoint(ctx context.Context, cfg runc.CheckpointConfig) error {
	run := func(ctx context.Context) error { return c.cfg.Runtime.Checkpoint(ctx, cfg) }
	return c.command(ctx, Checkpoint, run, &api.TaskCheckpointed{ContainerID: c.cfg.ID, Checkpoint: cfg.Image})
}

// deleteInit is the work of Delete for the init process.
func (c *Container) deleteInit() (reaper.Exit, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limits[Delete])
	defer cancel()
	c.cutRestore()
	if err := c.endCreated(ctx); err != nil {
		return reaper.Exit{}, err
	}
	err := c.init.do(ctx, Delete, func() error { return c.free(ctx) }, func() {
		// A restored container that was never started has waiters, but no life to free them.
		c.init.finish(reaper.Exit{})
		exit := c.init.info().Exit
		c.cfg.Events.Append(&api.TaskDelete{
			ContainerID: c.cfg.ID, Pid: c.pid(), ExitStatus: uint32(exit.Status), //nolint:gosec // 0 to 255
			ExitedAt: api.Time(exit.At),
		})
		c.reach(recorder.DeleteLogged)
		c.cfg.Forget()
	})
	return c.init.info().Exit, err
}

// onDelete has cut called by a deletion; nil stands for nothing.
func (c *Container) onDelete(cut func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

// cutRestore ends a restore under way, which may take long while there is no process yet to kill.
func (c *Container) cutRestore() {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	if cut != nil {
		cut()
	}
}

// endCreated kills an init process that was never started and waits for its life to log the
// exit, so that a delete always follows an exit.
func (c *Container) endCreated(ctx context.Context) error {
	child := c.init.alive()
	if child == nil || c.init.current() != Created {
		return nil
	}
	c.init.ask(killSignal)
	if err := signalChild(child, killSignal); err != nil {
		return err
	}
	if _, err := c.init.wait(ctx); err != nil {
		return fmt.Errorf("cannot delete task %s: its init process does not die: %s; free what it waits for: %w",
			c.cfg.ID, proc.Describe(proc.Family(child.Pid())), err)
	}
	return nil
}

// free gives back all that the container holds. Every step may be repeated. The output is
// drained while the runtime deletes, since each has its own limit and a client may have but 10 s
// for both (contract T42).
func (c *Container) free(ctx context.Context) error {
	c.reach(recorder.DeleteBegun)
	var wg sync.WaitGroup
	for _, e := range c.all() {
		wg.Go(func() { c.reportStuck(e.free(ctx)) })
	}
	wg.Go(func() { drain(ctx, c.init) })
	err := c.cfg.Runtime.Delete(ctx, false)
	if errors.Is(err, runc.ErrNotFound) {
		err = nil
	}
	wg.Wait()
	if io := c.init.stdio(); io != nil {
		err = errors.Join(err, io.Close())
	}
	c.reach(recorder.DeleteRan)
	if c.mounted {
		err = errors.Join(err, mount.Unmount(ctx, c.rootfs()))
	}
	c.reach(recorder.DeleteUnmounted)
	return err
}

func (c *Container) reportStuck(err error) {
	if err != nil {
		c.cfg.Log.Error("stdio not freed", "task", c.cfg.ID, "err", err)
	}
}

// drain waits until the output of p has reached its reader, or was cut: the limit for that began
// with the exit, and is stdio's.
func drain(ctx context.Context, p *process) {
	io := p.stdio()
	if io == nil || p.alive() == nil {
		return
	}
	select {
	case <-io.Drained():
	case <-ctx.Done():
	}
}

// command runs one runtime command under the turn and logs event, unless that is nil.
func (c *Container) command(ctx context.Context, op Op, run func(context.Context) error, event wire.Message) error {
	return c.init.do(ctx, op, func() error {
		limited, cancel := c.whileAlive(ctx, op)
		defer cancel()
		began := time.Now()
		err := run(limited)
		c.cfg.Log.Debug("runtime command", "task", c.cfg.ID, "op", op.String(), "took", time.Since(began), "err", err)
		return err
	}, func() {
		if event != nil {
			c.cfg.Events.Append(event)
		}
	})
}

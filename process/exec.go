package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
	"holdfast/runc"
	"holdfast/stdio"
)

// ExecConfig describes an exec process to add.
type ExecConfig struct {
	ID       string
	Process  []byte // JSON of the runtime specification, whose terminal is that of Terminal
	Terminal bool
	Stdin    string // as stdio.Config has them
	Stdout   string
	Stderr   string
}

// execProcess is a further process in a container.
type execProcess struct {
	*process
	cfg    ExecConfig
	delete flight
	kills  uint64 // for want of memory in the container, before the exec began
}

// Exec adds an exec process, which waits for Start. An id may be used again once it is deleted.
func (c *Container) Exec(cfg ExecConfig) error {
	if err := c.init.allow(Exec); err != nil {
		return err
	}
	if c.cfg.Checkpoint != "" && c.init.alive() == nil {
		return refuse(c.init.name, Created, Exec)
	}
	e := &execProcess{cfg: cfg, process: newProcess(fmt.Sprintf("exec %s of task %s", cfg.ID, c.cfg.ID), &execTable, c.cfg.Log)}
	e.waited = func(op Op, began time.Time) { c.waited(op.String(), cfg.ID, began) }
	// Nobody else has seen the exec, so the turn is free. A Start that is quicker than the event
	// waits for it.
	e.turn <- struct{}{}
	e.hold(Exec)
	defer e.give()
	return c.add(e)
}

// add enters an exec and logs it, unless the exit of the container has been logged.
func (c *Container) add(e *execProcess) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[e.cfg.ID] != nil {
		return fmt.Errorf("id %s: %w", e.cfg.ID, errdefs.ErrAlreadyExists)
	}
	if c.abandoned {
		return refuse(c.init.name, Stopped, Exec)
	}
	c.execs[e.cfg.ID] = e
	c.cfg.Events.Append(&api.TaskExecAdded{ContainerID: c.cfg.ID, ExecID: e.cfg.ID})
	return nil
}

// startExec has the runtime run the exec.
func (c *Container) startExec(ctx context.Context, e *execProcess) (int, error) {
	came := time.Now()
	if err := c.slots.take(ctx, e.name); err != nil {
		return 0, err
	}
	defer c.slots.give()
	if time.Since(came) > time.Millisecond {
		c.waited("for a place among the execs", e.cfg.ID, came)
	}
	var child *reaper.Child
	inside := false
	err := e.do(ctx, Start, func() (err error) {
		if inside = c.gate.enter(); !inside {
			return fmt.Errorf("container %s init process is not running: %w", c.cfg.ID, errdefs.ErrFailedPrecondition)
		}
		child, err = c.run(ctx, e)
		return err
	}, func() {
		c.cfg.Events.Append(&api.TaskExecStarted{
			ContainerID: c.cfg.ID, ExecID: e.cfg.ID, Pid: uint32(child.Pid()), //nolint:gosec // positive, below 2^22
		})
		c.reachExec(recorder.ExecLogged, e)
		go c.liveExec(e, child)
	})
	if err != nil {
		if inside {
			c.gate.leave()
		}
		if e.current() == Failed {
			e.finish(reaper.Exit{})
		}
		return 0, err
	}
	return child.Pid(), nil
}

// spec returns the specification for the runtime, with the size that the console has been given before
// the start. The process may look at it before we get hold of the console.
func (e *execProcess) spec() ([]byte, error) {
	width, height, ok := e.sizeBefore()
	if !ok || !e.cfg.Terminal {
		return e.cfg.Process, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(e.cfg.Process, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("cannot start %s: its process is no JSON object: %w", e.name, errdefs.ErrInvalidArgument)
	}
	fields["consoleSize"] = fmt.Appendf(nil, `{"height":%d,"width":%d}`, height, width)
	return json.Marshal(fields)
}

// waited notes that an operation had to wait, and waits no longer.
func (c *Container) waited(what, exec string, began time.Time) {
	c.cfg.Steps.Passed(recorder.Span{Kind: recorder.Turn, What: what, Task: c.cfg.ID, Exec: exec, Began: began})
}

func (c *Container) reachExec(step recorder.Step, e *execProcess) {
	c.cfg.Steps.Reach(step, c.cfg.ID, e.cfg.ID)
}

// run starts the process of e. If it fails nothing runs and nothing is left open.
func (c *Container) run(ctx context.Context, e *execProcess) (*reaper.Child, error) {
	c.reachExec(recorder.ExecBegun, e)
	io, err := stdio.Open(ctx, stdio.Config{
		Stdin: e.cfg.Stdin, Stdout: e.cfg.Stdout, Stderr: e.cfg.Stderr, Terminal: e.cfg.Terminal,
		UID: c.uid, GID: c.gid, ID: e.cfg.ID, Namespace: c.cfg.Namespace,
		LoggerDirs: c.cfg.LoggerDirs, Room: c.room, Log: c.cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("open stdio of %s: %w", e.name, err)
	}
	c.reachExec(recorder.ExecOpened, e)
	spec, err := e.spec()
	if err != nil {
		return nil, errors.Join(err, io.Close())
	}
	e.kills = c.watch.Kills()
	limited, cancel := c.whileAlive(ctx, Exec)
	defer cancel()
	child, console, err := c.cfg.Runtime.Exec(limited, runc.ExecConfig{
		Streams: streamsOf(io), Console: e.cfg.Terminal, Process: spec, ID: e.cfg.ID,
	})
	if err != nil {
		return nil, errors.Join(err, io.Close())
	}
	c.reachExec(recorder.ExecRan, e)
	if err := errors.Join(connect(io, console), e.attach(io)); err != nil {
		err = fmt.Errorf("connect stdio of %s: %w", e.name, err)
		return nil, errors.Join(err, signalChild(child, killSignal), io.Close())
	}
	e.born(child)
	if c.gate.closed() {
		// The init process died meanwhile, and its life may have killed the others before this
		// one was there.
		if err := signalChild(child, killSignal); err != nil {
			c.cfg.Log.Error("late exec not killed", "task", c.cfg.ID, "exec", e.cfg.ID, "err", err)
		}
	}
	return child, nil
}

// deleteExec frees an exec and forgets it.
func (c *Container) deleteExec(ctx context.Context, id string) (int, reaper.Exit, error) {
	e, err := c.exec(id)
	if err != nil {
		return 0, reaper.Exit{}, err
	}
	exit, err := e.delete.join(ctx, func() (reaper.Exit, error) {
		ctx, cancel := context.WithTimeout(context.Background(), limits[Delete])
		defer cancel()
		err := e.do(ctx, Delete, func() error { return errors.Join(e.free(ctx), forget(c.cfg.Bundle, execExitFile(id))) }, func() {
			e.finish(reaper.Exit{})
			c.drop(id)
		})
		return e.info().Exit, err
	})
	return e.info().Pid, exit, err
}

func (c *Container) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, id)
}

// free lets the output of the exec drain and closes its streams. It may be repeated.
func (e *execProcess) free(ctx context.Context) error {
	drain(ctx, e.process)
	if io := e.stdio(); io != nil {
		return io.Close()
	}
	return nil
}

package process

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
	"holdfast/internal/bundle"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
)

// patience is how long a life waits for execs before it says for whom it waits.
const patience = 10 * time.Second

// killPatience is how long the exit of a task waits for the end of the processes that it has left.
const killPatience = 500 * time.Millisecond

// live is the life of the init process. Its order is what is promised: OOM before exit, the
// exits of the execs before that of the init process, and the exit last.
func (c *Container) live(child *reaper.Child) {
	defer c.outlive(c.init)
	<-child.Done()
	exit := child.Exit()
	c.reach(recorder.ExitReaped)
	c.init.stdio().Exited()
	empty := c.gate.close()
	if exit.Signal == killSignal && !c.init.wasAsked(killSignal) {
		c.watch.CloseAfterKill()
	} else {
		c.watch.Close()
	}
	c.record(ExitFile, child.Pid(), exit, c.cause(exit))
	c.reach(recorder.ExitRecorded)
	c.killRest()
	c.await(empty)
	c.reach(recorder.ExitAlone)
	if io := c.init.stdio(); io.Logged() {
		<-io.Drained() // within 10 s
	}
	ctx := context.Background() // a life is nobody's request
	err := c.init.do(ctx, Exit, func() error {
		c.thawDead(ctx)
		return nil
	}, func() { c.exited(exit) })
	if err != nil {
		c.cfg.Log.Error("exit not logged", "task", c.cfg.ID, "pid", child.Pid(), "err", err)
	}
	c.abandon()
}

// exited logs the exit of the init process and frees the waiters, in this order: who wakes and
// deletes at once shall find the event in the log.
func (c *Container) exited(exit reaper.Exit) {
	pid := c.init.info().Pid
	c.mu.Lock()
	c.abandoned = true // from now on no exec is added: its event would come after the exit
	c.cfg.Events.Append(taskExit(c.cfg.ID, c.cfg.ID, pid, exit))
	c.mu.Unlock()
	c.reach(recorder.ExitLogged)
	c.init.finish(exit)
	c.cfg.Log.Info("task exited", "task", c.cfg.ID, "pid", pid, "status", exit.Status,
		"cause", c.cause(exit))
}

// liveExec is the life of an exec.
func (c *Container) liveExec(e *execProcess, child *reaper.Child) {
	defer c.gate.leave()
	defer c.outlive(e.process)
	<-child.Done()
	exit := child.Exit()
	c.reachExec(recorder.ExecExitReaped, e)
	e.stdio().Exited()
	c.record(execExitFile(e.cfg.ID), child.Pid(), exit, c.causeOfExec(e, exit))
	c.reachExec(recorder.ExecExitRecorded, e)
	err := e.do(context.Background(), Exit, nil, func() {
		c.cfg.Events.Append(taskExit(c.cfg.ID, e.cfg.ID, child.Pid(), exit))
		c.reachExec(recorder.ExecExitLogged, e)
		e.finish(exit)
	})
	if err != nil {
		c.cfg.Log.Error("exit not logged", "task", c.cfg.ID, "exec", e.cfg.ID, "pid", child.Pid(), "err", err)
	}
}

// outlive turns a panic of a life into an exit with status 255, so that a bug in one container
// does not end the others and nobody waits for ever.
func (c *Container) outlive(p *process) {
	cause := recover()
	if cause == nil {
		return
	}
	c.cfg.Log.Error("panic", "task", c.cfg.ID, "err", fmt.Sprint(cause), "stack", string(debug.Stack()),
		"steps", c.cfg.Steps.String())
	p.finish(reaper.Exit{Status: 255, At: time.Now()})
}

func taskExit(container, id string, pid int, exit reaper.Exit) *api.TaskExit {
	return &api.TaskExit{
		ContainerID: container,
		ID:          id,
		Pid:         uint32(pid),         //nolint:gosec // positive, below 2^22
		ExitStatus:  uint32(exit.Status), //nolint:gosec // 0 to 255
		ExitedAt:    api.Time(exit.At),
	}
}

// killRest ends what the death of the init process did not: with a pid namespace that is not the
// container's own, its other processes live on (contract 8.4). Execs are killed by name first, since
// the exit of the task waits for them: one may have left the control group, and where there is none
// killing all is the runtime's, which may hang. That is not waited for.
func (c *Container) killRest() {
	if c.spec.PrivatePID {
		return
	}
	for _, e := range c.all() {
		if child := e.alive(); child != nil {
			if err := signalChild(child, killSignal); err != nil {
				c.cfg.Log.Warn("exec not killed", "task", c.cfg.ID, "exec", e.cfg.ID, "err", err)
			}
		}
	}
	done := make(chan struct{})
	go func() { // ends with its time, at the latest
		defer close(done)
		ctx, cancel := detach(context.Background(), Kill)
		defer cancel()
		if err := c.killAll(ctx, killSignal); err != nil {
			c.cfg.Log.Warn("processes may be left", "task", c.cfg.ID, "err", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(killPatience):
	}
}

// await waits until all execs have logged their exits. That has no limit: an exit that is
// announced too early is worse than one that is late. It does say for whom it waits.
func (c *Container) await(empty <-chan struct{}) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-empty:
		return
	case <-timer.C:
	}
	for _, e := range c.all() {
		if info := e.info(); info.State == Running || info.State == Created {
			c.cfg.Log.Warn("the exit of the task waits for an exec", "task", c.cfg.ID, "exec", e.cfg.ID, "pid", info.Pid)
		}
	}
	<-empty
}

// thawDead thaws the control group of a container that died while it was paused, or it could not
// be deleted (contract T33). The turn is ours.
func (c *Container) thawDead(ctx context.Context) {
	if c.init.current() != Paused {
		return
	}
	group := c.cgroup()
	if group == nil {
		return
	}
	// A group that has gone, as a systemd scope does at once, has nobody left to thaw.
	if err := group.Thaw(); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		limited, cancel := detach(ctx, Resume)
		defer cancel()
		if err2 := c.cfg.Runtime.Resume(limited); err2 != nil {
			c.cfg.Log.Warn("task not thawed", "task", c.cfg.ID, "err", err, "then", err2)
		}
	}
}

// abandon frees the waiters of execs that can never start any more.
func (c *Container) abandon() {
	c.mu.Lock()
	c.abandoned = true
	c.mu.Unlock()
	for _, e := range c.all() {
		// Only a created exec is abandoned; the refusal of the others is what is wanted.
		if e.do(context.Background(), Abandon, nil, nil) == nil {
			e.finish(reaper.Exit{})
		}
	}
}

// killedForMemory logs an OOM kill, and leaves a file that says so.
func (c *Container) killedForMemory(limit string) {
	kill := &oomKill{limit: limit}
	c.oomed.Store(kill)
	c.tellVictim(kill)
	path := filepath.Join(c.cfg.Bundle, oomFile)
	if err := bundle.Make(path, nil, 0o600); err != nil {
		c.cfg.Log.Warn("OOM kill not recorded", "task", c.cfg.ID, "err", err)
	}
	c.cfg.Events.Append(&api.TaskOOM{ContainerID: c.cfg.ID})
	c.cfg.Log.Info("process killed for want of memory", "task", c.cfg.ID, "limit", limit)
}

package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

// A caller is a client of all the shims.
type caller struct {
	world  *world
	name   string
	random *rand.Rand
	lines  []*line // one for each pod
	made   int     // how many containers and execs, for their ids
}

func (w *world) newCaller(n int, seed uint64) *caller {
	c := &caller{world: w, name: fmt.Sprintf("k%d", n), random: source(seed, n)}
	for _, p := range w.pods {
		c.lines = append(c.lines, &line{pod: p})
	}
	return c
}

// run does one thing after the other until ctx ends.
func (c *caller) run(ctx context.Context) {
	for ctx.Err() == nil {
		c.do(choose(c.random))
	}
}

// do does what was chosen to what there is.
func (c *caller) do(ch choice) {
	p, on := c.world.pods[ch.pod], c.lines[ch.pod]
	c.made++
	if ch.op == create {
		c.create(p, on, ch)
		return
	}
	l := p.at(ch.slot)
	if l == nil {
		l = &life{id: "ghost", pod: p, streams: map[string]*stream{}}
	}
	proc := l.pick(ch.exec)
	switch ch.op {
	case addExec:
		c.addExec(l, on, ch)
	case start:
		c.start(l, proc, on)
	case remove:
		// A container that was only created can be deleted; most are to live longer.
		if l.fresh(proc) && ch.detail%8 != 0 {
			c.start(l, proc, on)
			return
		}
		c.remove(l, proc, on)
	case state:
		c.state(l, proc, on)
	case wait:
		c.wait(l, proc, on, time.Duration(ch.detail%300)*time.Millisecond)
	default:
		// What these answer was judged by its kind: nothing follows from it.
		on.call(ch.op, l.id, func(ctx context.Context, s *client.Shim) error { return plain(ctx, s, l, proc, ch) })
	}
}

// signals are those that clients send; some kill, one is none, one does not exist.
var signals = []uint32{9, 9, 15, 15, 1, 12, 0, 200}

// plain makes a call whose answer tells nothing more than how it went.
func plain(ctx context.Context, s *client.Shim, l *life, p *process, ch choice) (err error) {
	switch ch.op {
	case kill:
		signal := signals[ch.detail%len(signals)]
		_, err = s.Kill(ctx, &task.KillRequest{ID: l.id, ExecID: p.exec, Signal: signal, All: ch.more%4 == 0})
	case pids:
		_, err = s.Pids(ctx, &task.PidsRequest{ID: l.id})
	case stats:
		_, err = s.Stats(ctx, &task.StatsRequest{ID: l.id})
	case pause:
		_, err = s.Pause(ctx, &task.PauseRequest{ID: l.id})
	case resume:
		_, err = s.Resume(ctx, &task.ResumeRequest{ID: l.id})
	case resize:
		_, err = s.ResizePty(ctx, &task.ResizePtyRequest{
			ID: l.id, ExecID: p.exec, Width: uint32(ch.detail % 300), Height: uint32(ch.more % 100),
		})
	case closeIO:
		_, err = s.CloseIO(ctx, &task.CloseIORequest{ID: l.id, ExecID: p.exec, Stdin: true})
	case connect:
		_, err = s.Connect(ctx, &task.ConnectRequest{ID: l.id})
	case shutdown:
		_, err = s.Shutdown(ctx, &task.ShutdownRequest{ID: l.id})
	default:
		err = fmt.Errorf("no such operation: %s", ch.op)
	}
	return err
}

// programs are what containers and execs run. Those with an odd index end by themselves.
var programs = [][]string{
	{"/bin/sleep", "1000"},
	{"/bin/sh", "-c", "exit 7"},
	{"/bin/sh", "-c", "while :; do echo out; echo err >&2; sleep 0.02; done"},
	{"/bin/sh", "-c", "sleep 0.3; echo done; exit 3"},
	{"/bin/sh", "-c", "trap '' TERM HUP; sleep 1000 & wait; wait"},
	{"/bin/sh", "-c", "cat; exit 4"},
	{"/bin/sleep", "10000"},
	{missing},
}

// missing is a program that does not exist.
const missing = "/bin/missing"

// streams makes what a process is connected to. The streams are attached to the life.
func (c *caller) streams(l *life, exec string, ch choice) *task.CreateTaskRequest {
	r := &task.CreateTaskRequest{}
	cfg := client.IOConfig{Forget: true}
	switch ch.detail % 5 {
	case 0:
		return r
	case 1:
		uri := "binary://" + c.world.logger() + "?id=" + l.id
		r.Stdout, r.Stderr = uri, uri
		return r
	case 2:
		cfg.Stdin = true
	case 3:
		cfg.Terminal = true
	}
	s, err := openStream(filepath.Join(l.pod.dir, "io"), l.id+"-"+exec, cfg)
	if err != nil {
		c.world.t.Error(err)
		return r
	}
	l.attach(exec, s)
	r.Stdin, r.Stdout, r.Stderr, r.Terminal = s.stdin, s.stdout, s.stderr, cfg.Terminal
	return r
}

// create makes a container in a slot that is free. In one that is not, it creates the pod's first
// container again, which must be refused.
func (c *caller) create(p *pod, on *line, ch choice) {
	id := fmt.Sprintf("%s-%s-%d", p.id, c.name, c.made)
	l := &life{id: id, pod: p, bundle: filepath.Join(p.dir, id), streams: map[string]*stream{}}
	if !p.take(ch.slot, l) {
		err := on.call(create, p.id, func(ctx context.Context, s *client.Shim) error {
			_, err := s.Create(ctx, &task.CreateTaskRequest{ID: p.id, Bundle: filepath.Join(p.dir, p.id)})
			return err
		})
		if !errors.Is(err, errdefs.ErrAlreadyExists) && !lost(err) {
			c.world.t.Errorf("%s was created a second time: %v", p.id, err)
		}
		return
	}
	r := c.streams(l, "", ch)
	r.ID, r.Bundle = id, l.bundle
	if err := p.prepare(l, programs[ch.more%len(programs)], r.Terminal); err != nil {
		c.world.t.Errorf("prepare %s: %v", id, err)
		p.free(l)
		return
	}
	if program := ch.more % len(programs); program%2 == 1 {
		c.world.disturb(id)
	}
	init := l.add("")
	if err := c.created(l, on, r); err != nil {
		p.free(l)
		l.forget(init)
		p.leave(l, on)
		return
	}
	p.waiters.Go(func() { p.await(l, init) })
}

// created asks for a container until the answer is clear. If the connection is cut, the request may
// have been lost, may be under way, or done.
func (c *caller) created(l *life, on *line, r *task.CreateTaskRequest) error {
	unsure := false
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := on.call(create, l.id, func(ctx context.Context, s *client.Shim) error {
			_, err := s.Create(ctx, r)
			return err
		})
		switch {
		case lost(err):
			unsure = true
		case unsure && errors.Is(err, errdefs.ErrAlreadyExists):
			_, err := c.state(l, &process{}, on)
			if err == nil {
				return nil
			}
		default:
			return err
		}
		if _, deleted := l.known(&process{}); deleted {
			return nil // by another client, so it was created
		}
		if time.Now().After(end) {
			c.world.t.Errorf("%s is not there, and cannot be created, %v after its creation was asked for", l.id, limit)
			return err
		}
	}
}

// addExec adds an exec, some that exists already.
func (c *caller) addExec(l *life, on *line, ch choice) {
	if l.full() {
		return
	}
	id := fmt.Sprintf("e-%s-%d", c.name, c.made)
	r := c.streams(l, id, ch)
	spec, err := client.ExecSpec(client.BundleConfig{Args: programs[ch.more%len(programs)]})
	if err != nil {
		c.world.t.Error(err)
		return
	}
	p := l.add(id)
	err = on.call(addExec, l.id, func(ctx context.Context, s *client.Shim) error {
		_, err := s.Exec(ctx, &task.ExecProcessRequest{
			ID: l.id, ExecID: id, Spec: spec,
			Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		})
		return err
	})
	if l.pod.at(ch.slot) != l {
		l.detach(id) // the container is gone, or never was: nobody else does it
	}
	if err != nil && !lost(err) {
		l.forget(p)
		l.detach(id)
		return
	}
	if ch.more%2 == 0 {
		l.pod.waiters.Go(func() { l.pod.await(l, p) })
	}
}

func (c *caller) start(l *life, p *process, on *line) {
	var a *task.StartResponse
	err := on.call(start, l.id, func(ctx context.Context, s *client.Shim) (err error) {
		a, err = s.Start(ctx, &task.StartRequest{ID: l.id, ExecID: p.exec})
		return err
	})
	if err == nil {
		l.started(p, a.GetPid())
	}
}

// remove deletes a process. With the init process the container is gone.
func (c *caller) remove(l *life, p *process, on *line) error {
	var a *task.DeleteResponse
	err := on.call(remove, l.id, func(ctx context.Context, s *client.Shim) (err error) {
		a, err = s.Delete(ctx, &task.DeleteRequest{ID: l.id, ExecID: p.exec})
		return err
	})
	if err != nil {
		return err
	}
	c.world.told(l, p, a.GetExitStatus(), client.Time(a.GetExitedAt()))
	l.forget(p)
	l.detach(p.exec)
	if p.exec == "" {
		l.pod.free(l)
		l.pod.leave(l, on)
	}
	return nil
}

// state asks for the state of a process; what has ended has to stay so.
func (c *caller) state(l *life, p *process, on *line) (*task.StateResponse, error) {
	ended, _ := l.known(p)
	var a *task.StateResponse
	err := on.call(state, l.id, func(ctx context.Context, s *client.Shim) (err error) {
		a, err = s.State(ctx, &task.StateRequest{ID: l.id, ExecID: p.exec})
		return err
	})
	if err != nil {
		return nil, err
	}
	if a.GetStatus() == tasktypes.Status_STOPPED {
		c.world.told(l, p, a.GetExitStatus(), client.Time(a.GetExitedAt()))
	} else if ended != nil {
		c.world.t.Errorf("%s %s is %v after it has ended with %v", l.id, p.exec, a.GetStatus(), ended)
	}
	return a, nil
}

// wait waits for an exit, but not for long.
func (c *caller) wait(l *life, p *process, on *line, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Millisecond)
	defer cancel()
	l.pod.wait(ctx, l, p, on)
}

// told notes what an answer tells of an exit.
func (w *world) told(l *life, p *process, status uint32, at time.Time) {
	if at.IsZero() {
		return // it has not run
	}
	if err := l.exited(p, exit{status, at}); err != nil {
		w.t.Error(err)
	}
}

// prepare makes the bundle and tells the shim of it, as a manager does: by the start action.
func (p *pod) prepare(l *life, args []string, terminal bool) error {
	cfg := p.config(args, terminal)
	cfg.CgroupsPath = p.world.cgroup(l.id)
	if err := client.NewBundle(l.bundle, cfg); err != nil {
		return err
	}
	start := p.Config
	start.ID, start.Bundle = l.id, l.bundle
	log, err := client.OpenLog(l.bundle, nil)
	if err != nil {
		return err
	}
	defer log.Close()
	ctx, cancel := within()
	defer cancel()
	answer, err := client.Start(ctx, start)
	if err != nil {
		return errors.Join(err, os.RemoveAll(l.bundle))
	}
	if answer.Address != p.Result.Address {
		return fmt.Errorf("start answers %s, the shim is at %s", answer.Address, p.Result.Address)
	}
	return nil
}

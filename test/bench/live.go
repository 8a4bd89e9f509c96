package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// The phases of a life. The last one is the whole of it.
const (
	start  = iota // the start action, and the first answers of the daemon
	create        // the runtime makes the container
	run           // from the call of Start to the exit of `true`
	remove        // Delete
	end           // Shutdown, the end of the daemon, and the delete action
	whole
	phases
)

var phaseIDs = [phases]string{create: "create", run: "run", remove: "delete", end: "end"}

// A life is how one has passed.
type life struct {
	took  [phases]time.Duration
	times client.Times
	pid   int // of the shim
}

// warmUp is how many lives of each shim are not counted: the first ones read from disk.
const warmUp = 3

// lifeLimit bounds a life, so that a shim that hangs ends the measurement.
const lifeLimit = time.Minute

// live takes a container that runs `true` from the start action to the delete action, in dir, which
// it makes and removes. It returns how long each phase took.
func live(ctx context.Context, dir string, shim contender) (l life, err error) {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	c, err := prepare(dir, shim, client.BundleConfig{Args: []string{"true"}})
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	began := time.Now()
	last := began
	lap := func(phase int) {
		now := time.Now()
		l.took[phase] = now.Sub(last)
		last = now
	}
	s, err := client.Launch(ctx, dir, c, nil)
	if err != nil {
		return l, err
	}
	lap(start)
	l.times, l.pid = s.Times, s.Pid()
	if err := through(ctx, s, lap); err != nil {
		_, _, crashErr := s.Crash(context.WithoutCancel(ctx))
		return l, errors.Join(err, crashErr)
	}
	_, err = s.End(ctx)
	lap(end)
	l.took[whole] = time.Since(began)
	if errors.Is(err, client.ErrWarning) {
		err = nil
	}
	return l, err
}

// through takes the container from its creation to its deletion.
func through(ctx context.Context, s *client.Session, lap func(phase int)) error {
	id := s.Config.ID
	if _, err := s.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: s.Config.Bundle, Options: s.Config.Options}); err != nil {
		return err
	}
	lap(create)
	if _, err := s.Start(ctx, &task.StartRequest{ID: id}); err != nil {
		return err
	}
	exit, err := s.Wait(ctx, &task.WaitRequest{ID: id})
	if err != nil {
		return err
	}
	lap(run)
	if exit.ExitStatus != 0 {
		return fmt.Errorf("true ended with %d", exit.ExitStatus)
	}
	_, err = s.Delete(ctx, &task.DeleteRequest{ID: id})
	lap(remove)
	return err
}

// lifeLines are about lives. What is added to bare begins where the daemon has answered: the start
// action has rows of its own.
var lifeLines = []line{
	{id: "start-answered", name: "start: until it has answered", unit: "ms", decimals: 2, bound: ofTheirs, limit: 0.75},
	{id: "start-reached", name: "start: until the first call is answered", unit: "ms", decimals: 2, bound: ofTheirs, limit: 0.6},
	{id: "create", name: "create", unit: "ms", decimals: 2},
	{id: "run", name: "start to exit of true", unit: "ms", decimals: 2},
	{id: "delete", name: "delete", unit: "ms", decimals: 2},
	{id: "end", name: "shutdown, delete action", unit: "ms", decimals: 2},
	{id: "life", name: "create to delete action", unit: "ms", decimals: 2},
	{id: "life", name: "the same, added to bare", unit: "ms", decimals: 2, added: true, bound: ofTheirs, limit: 0.35},
	{id: "whole", name: "whole life", unit: "ms", decimals: 2},
	{id: "whole", name: "whole life, p90", unit: "ms", decimals: 2, q: 0.9},
	{id: "life-cpu", name: "CPU of the shim, whole life", unit: "ms", decimals: 2, bound: ofTheirs, limit: 0.35},
	{id: "start-cpu", name: "of that, the start action", unit: "ms", decimals: 2},
	{id: "daemon-cpu", name: "of that, the daemon", unit: "ms", decimals: 2},
	{id: "delete-cpu", name: "of that, the delete action", unit: "ms", decimals: 2},
}

// lives runs n lives of each side in turns, then as many whose CPU time is measured.
func (b *bench) lives(ctx context.Context) error {
	err := b.takeTurns(ctx, warmUp, b.n, func(round int, c contender) error {
		l, err := live(ctx, b.lifeDir(round, c.short), c)
		if err == nil && round >= 0 {
			b.noteLife(c.name, l)
		}
		return err
	}, func(round int) error {
		took, err := b.bareLife(ctx, b.lifeDir(round, bareName))
		if err == nil && round >= 0 {
			b.noteBare(took)
		}
		return err
	})
	if err != nil {
		return err
	}
	return b.takeTurns(ctx, 1, b.n, func(round int, c contender) error {
		spent, err := b.meteredLife(ctx, b.lifeDir(round, c.short), c)
		if err == nil && round >= 0 {
			b.note("life-cpu", c.name, ms(spent.start+spent.daemon+spent.remove))
			b.note("start-cpu", c.name, ms(spent.start))
			b.note("daemon-cpu", c.name, ms(spent.daemon))
			b.note("delete-cpu", c.name, ms(spent.remove))
		}
		return err
	}, nil)
}

func (b *bench) lifeDir(round int, short string) string {
	return filepath.Join(b.dir, fmt.Sprintf("l%d-%s", round+warmUp, short))
}

func (b *bench) noteLife(side string, l life) {
	b.note("start-answered", side, ms(l.times.Answered.Sub(l.times.Began)))
	b.note("start-reached", side, ms(l.times.Reached.Sub(l.times.Began)))
	b.note("whole", side, ms(l.took[whole]))
	b.noteBetween(side, l.took)
}

// noteBare notes a life without shim, which has no start and is whole without an end.
func (b *bench) noteBare(took [phases]time.Duration) { b.noteBetween(bareName, took) }

// noteBetween notes what lies between the start of a shim and its end.
func (b *bench) noteBetween(side string, took [phases]time.Duration) {
	sum := 0.0
	for phase := create; phase <= end; phase++ {
		if side != bareName || phase != end {
			b.note(phaseIDs[phase], side, ms(took[phase]))
		}
		sum += ms(took[phase])
	}
	b.note("life", side, sum)
}

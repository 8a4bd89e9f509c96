package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"holdfast/internal/client"
)

// together is how many execs run at once.
const together = 10

// execLines are about execs of `true`, from Exec to Delete; bare is the runtime's exec, until the
// process has ended.
var execLines = []line{
	{id: "exec", name: "exec, alone", unit: "ms", decimals: 2},
	{id: "exec", name: "exec, alone, p90", unit: "ms", decimals: 2, q: 0.9},
	{id: "exec", name: "exec, alone, added to bare", unit: "ms", decimals: 2, added: true, bound: atMost, limit: 0.4},
	{id: "execs", name: "10 execs at once, until the last has ended", unit: "ms", decimals: 2},
	{id: "execs", name: "the same, added to bare", unit: "ms", decimals: 2, added: true, bound: ofTheirs, limit: 0.5},
	{id: "exec-cpu", name: "CPU of the shim per exec", unit: "ms", decimals: 3, bound: ofTheirs, limit: 0.5},
}

// aloneFactor is how many more rounds than lives there are of execs alone: the difference of a fraction of a
// millisecond between two runs of ten or twenty needs many.
const aloneFactor = 10

// execs measures execs alone of each side, in turns, then some at once.
func (b *bench) execs(ctx context.Context) error {
	return b.withEach(ctx, "e", func(sessions map[string]*client.Session) (err error) {
		c, err := b.newBare(filepath.Join(b.dir, "e-bare"), idler())
		if err != nil {
			return err
		}
		if _, err := c.create(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.remove(ctx)) }()
		if err := c.call(ctx, "start", c.id); err != nil {
			return err
		}
		process, err := c.writeProcess(client.BundleConfig{Args: []string{"true"}})
		if err != nil {
			return err
		}
		if err := b.alone(ctx, sessions, c, process); err != nil {
			return err
		}
		return b.atOnce(ctx, sessions, c, process)
	})
}

func (b *bench) alone(ctx context.Context, sessions map[string]*client.Session, c *bareContainer, process string) error {
	return b.takeTurns(ctx, warmUp, aloneFactor*b.n, func(round int, shim contender) error {
		s := sessions[shim.name]
		before, err := cpuTime(s.Pid())
		if err != nil {
			return err
		}
		took, err := clock(func() error { return runOne(ctx, s, fmt.Sprintf("a%d", round+warmUp)) })
		if err != nil || round < 0 {
			return err
		}
		after, err := cpuTime(s.Pid())
		b.note("exec", shim.name, ms(took))
		b.note("exec-cpu", shim.name, ms(after-before))
		return err
	}, func(round int) error {
		took, err := clock(func() error { return c.execute(ctx, process, "e") })
		if err == nil && round >= 0 {
			b.note("exec", bareName, ms(took))
		}
		return err
	})
}

func (b *bench) atOnce(ctx context.Context, sessions map[string]*client.Session, c *bareContainer, process string) error {
	return b.takeTurns(ctx, 1, b.n, func(round int, shim contender) error {
		took, err := clock(func() error {
			return many(together, func(i int) error {
				return runOne(ctx, sessions[shim.name], fmt.Sprintf("m%d-%d", round+1, i))
			})
		})
		if err == nil && round >= 0 {
			b.note("execs", shim.name, ms(took))
		}
		return err
	}, func(round int) error {
		took, err := clock(func() error {
			return many(together, func(i int) error { return c.execute(ctx, process, fmt.Sprint("m", i)) })
		})
		if err == nil && round >= 0 {
			b.note("execs", bareName, ms(took))
		}
		return err
	})
}

// clock tells how long something has taken.
func clock(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}

// many does something n times at once, and returns when all have been done.
func many(n int, f func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

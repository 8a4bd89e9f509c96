package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// What a turn of a shim under load is.
const (
	loaders   = 4 // who run execs, one after the other, on the shim that is asked
	questions = 20
	pause     = 5 * time.Millisecond // between two questions
)

// loadLines are about calls that are answered while execs run on the same shim.
var loadLines = []line{
	{id: "stats", name: "Stats while execs run", unit: "ms", decimals: 3, bound: ofTheirs, limit: 0.5},
	{id: "stats", name: "Stats while execs run, p99", unit: "ms", decimals: 3, q: 0.99},
	{id: "state", name: "State while execs run", unit: "ms", decimals: 3, bound: ofTheirs, limit: 0.5},
	{id: "state", name: "State while execs run, p99", unit: "ms", decimals: 3, q: 0.99},
	{id: "load", name: "execs a second meanwhile", unit: "", decimals: 1},
}

// load asks each shim in turns. Only the one that is asked is under load.
func (b *bench) load(ctx context.Context) error {
	return b.withEach(ctx, "l", func(sessions map[string]*client.Session) error {
		return b.takeTurns(ctx, 1, (b.n+4)/5, func(round int, c contender) error {
			return b.ask(ctx, sessions[c.name], c.name, round)
		}, nil)
	})
}

// ask is a turn of a shim.
func (b *bench) ask(ctx context.Context, s *client.Session, side string, round int) error {
	stop, loaded := make(chan struct{}), make(chan error)
	var done atomic.Int32
	began := time.Now()
	go func() {
		loaded <- many(loaders, func(i int) error {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := runOne(ctx, s, fmt.Sprintf("x%d-%d-%d", round+1, i, j)); err != nil {
					return err
				}
				done.Add(1)
			}
		})
	}()
	id := s.Config.ID
	err := rest(ctx, 10*pause)
	for range questions {
		err = errors.Join(err, rest(ctx, pause), b.timed("stats", side, round, func() error {
			_, err := s.Stats(ctx, &task.StatsRequest{ID: id})
			return err
		}), rest(ctx, pause), b.timed("state", side, round, func() error {
			_, err := s.State(ctx, &task.StateRequest{ID: id})
			return err
		}))
	}
	if round >= 0 {
		b.note("load", side, float64(done.Load())/time.Since(began).Seconds())
	}
	close(stop)
	return errors.Join(err, <-loaded)
}

// timed notes how long a call takes.
func (b *bench) timed(id, side string, round int, call func() error) error {
	took, err := clock(call)
	if err == nil && round >= 0 {
		b.note(id, side, ms(took))
	}
	return err
}

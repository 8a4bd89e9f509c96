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
			return b.askLoaded(ctx, sessions[c.name], c.name, round)
		}, nil)
	})
}

// askLoaded is a turn of a shim.
func (b *bench) askLoaded(ctx context.Context, s *client.Session, side string, round int) error {
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
	err := errors.Join(rest(ctx, 10*pause), b.noteAnswers(ctx, s, side, round))
	if round >= 0 {
		b.note("load", side, float64(done.Load())/time.Since(began).Seconds())
	}
	close(stop)
	return errors.Join(err, <-loaded)
}

// noteAnswers asks for statistics and the state in turn.
func (b *bench) noteAnswers(ctx context.Context, s *client.Session, side string, round int) error {
	stats, err := question(s.Shim, "Stats", &task.StatsRequest{ID: s.Config.ID})
	if err != nil {
		return err
	}
	state, err := question(s.Shim, "State", &task.StateRequest{ID: s.Config.ID})
	if err != nil {
		return err
	}
	took, err := b.ask(ctx, s.Result.Address, questions, pause, stats, state)
	if err != nil || round < 0 {
		return err
	}
	for i := range questions {
		b.note("stats", side, took[0][i])
		b.note("state", side, took[1][i])
	}
	return nil
}

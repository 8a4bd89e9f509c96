package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// askers are how many clients ask at once, each over a connection of its own.
var askers = [...]int{1, 2, 4, 8, 16}

// asked is how often each client asks in a turn.
const asked = 100

// clients measures how long State takes while more and more clients ask, one question after the
// other. Nothing else runs on the shim.
func (b *bench) clients(ctx context.Context) error {
	return b.withEach(ctx, "m", func(sessions map[string]*client.Session) error {
		table := tabwriter.NewWriter(b.w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "State, ms\tclients\tp50\tp99\t")
		for _, n := range askers {
			took := map[string][]float64{}
			err := b.takeTurns(ctx, 1, (b.n+4)/5, func(round int, c contender) error {
				times, err := askAtOnce(ctx, sessions[c.name], n)
				if round >= 0 {
					took[c.name] = append(took[c.name], times...)
				}
				return err
			}, nil)
			if err != nil {
				return err
			}
			for _, c := range b.shims {
				d := delay{clients: n, p50: quantile(took[c.name], 0.5), p99: quantile(took[c.name], 0.99)}
				fmt.Fprintf(table, "%s\t%d\t%s\t%s\t\n", c.name, n, figure(3, d.p50), figure(3, d.p99))
				if b.plots != nil {
					b.plots.latency[c.name] = append(b.plots.latency[c.name], d)
				}
			}
		}
		return table.Flush()
	})
}

// askAtOnce has n clients ask a shim, and returns how long each answer took, in ms.
func askAtOnce(ctx context.Context, s *client.Session, n int) (took []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	shims := make([]*client.Shim, n)
	defer func() {
		for _, shim := range shims {
			if shim != nil {
				shim.Close()
			}
		}
	}()
	for i := range shims {
		if shims[i], err = client.Dial(ctx, s.Result.Address); err != nil {
			return nil, err
		}
		shims[i].Namespace, shims[i].Version = s.Namespace, s.Version
	}
	times := make([][]float64, n)
	err = many(n, func(i int) error {
		var errs error
		for range asked {
			began := time.Now()
			_, err := shims[i].State(ctx, &task.StateRequest{ID: s.Config.ID})
			times[i] = append(times[i], ms(time.Since(began)))
			errs = errors.Join(errs, err)
		}
		return errs
	})
	for _, t := range times {
		took = append(took, t...)
	}
	return took, err
}

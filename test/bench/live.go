package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// The phases of a life. The last one is the whole of it.
const (
	start  = iota // the start action, and the first answer of the daemon
	create        // the runtime makes the container
	run           // from the call of Start to the exit of `true`
	remove        // Delete
	end           // Shutdown, the end of the daemon, and the delete action
	whole
	phases
)

var phaseNames = [phases]string{"start", "create", "run", "delete", "end", "whole life"}

// warmUp is how many lives of each shim are not counted: the first ones read from disk.
const warmUp = 3

// lifeLimit bounds a life, so that a shim that hangs ends the measurement.
const lifeLimit = time.Minute

// live takes a container that runs `true` from the start action to the delete action, in dir, which
// it makes and removes. It returns how long each phase took.
func live(ctx context.Context, dir, shim string) (took [phases]time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	c, err := prepare(dir, shim, client.BundleConfig{Args: []string{"true"}})
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	began := time.Now()
	last := began
	lap := func(phase int) {
		now := time.Now()
		took[phase] = now.Sub(last)
		last = now
	}
	s, err := client.Launch(ctx, dir, c, nil)
	if err != nil {
		return took, err
	}
	lap(start)
	if err := through(ctx, s, lap); err != nil {
		_, _, crashErr := s.Crash(context.WithoutCancel(ctx))
		return took, errors.Join(err, crashErr)
	}
	_, err = s.End(ctx)
	lap(end)
	took[whole] = time.Since(began)
	if errors.Is(err, client.ErrWarning) {
		err = nil
	}
	return took, err
}

// through takes the container from its creation to its deletion.
func through(ctx context.Context, s *client.Session, lap func(phase int)) error {
	id := s.Config.ID
	if _, err := s.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: s.Config.Bundle}); err != nil {
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

// lives runs n lives of each shim in turns and prints how long their phases took.
func (b *bench) lives(ctx context.Context) error {
	fmt.Fprintf(b.w, "%d lives each\n", b.n)
	var times [2][phases][]time.Duration
	for i := range warmUp + b.n {
		for j := range b.shims {
			which := (i + j) % len(b.shims) // who goes first changes, too
			life, err := live(ctx, filepath.Join(b.dir, fmt.Sprintf("%d-%d", i, which)), b.shims[which])
			if err != nil {
				return fmt.Errorf("life %d of %s: %w", i, b.shims[which], err)
			}
			if i < warmUp {
				continue
			}
			for phase, took := range life {
				times[which][phase] = append(times[which][phase], took)
			}
		}
	}
	printTimes(b.w, times)
	return nil
}

func printTimes(w io.Writer, times [2][phases][]time.Duration) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ms\tours\tp90\ttheirs\tp90\tratio\t")
	for phase := range phases {
		a, b := times[ours][phase], times[theirs][phase]
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t\n", phaseNames[phase],
			ms(quantile(a, 0.5)), ms(quantile(a, 0.9)), ms(quantile(b, 0.5)), ms(quantile(b, 0.9)),
			float64(quantile(a, 0.5))/float64(quantile(b, 0.5)))
	}
	_ = table.Flush() // like fmt.Fprint to standard output
}

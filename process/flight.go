package process

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/containerd/errdefs"

	"holdfast/internal/reaper"
)

// flight lets any number of callers share one run of some work. The work goes on when a
// caller gives up: half a deletion helps nobody. Once it has failed the next caller begins anew;
// once it has succeeded every later caller gets that result.
type flight struct {
	mu  sync.Mutex // guards what follows
	now *outcome
}

type outcome struct {
	done chan struct{} // closed after exit and err have been set
	exit reaper.Exit
	err  error
}

// join waits for the run under way, or for one of its own, or for ctx to end.
func (f *flight) join(ctx context.Context, work func() (reaper.Exit, error)) (reaper.Exit, error) {
	o := f.begin(work)
	select {
	case <-o.done:
		return o.exit, o.err
	case <-ctx.Done():
		return reaper.Exit{}, ctx.Err()
	}
}

func (f *flight) begin(work func() (reaper.Exit, error)) *outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now != nil {
		return f.now
	}
	o := &outcome{done: make(chan struct{})}
	f.now = o
	go func() { // ends with work, whose every step is bounded
		o.exit, o.err = survive(work)
		if o.err != nil {
			f.mu.Lock()
			f.now = nil
			f.mu.Unlock()
		}
		close(o.done)
	}()
	return o
}

// survive turns a panic of work into an error: nobody else would catch it, and it would end all
// containers of the shim.
func survive(work func() (reaper.Exit, error)) (exit reaper.Exit, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("cannot delete: the shim has a bug (%v); report it: %s: %w", cause, debug.Stack(), errdefs.ErrInternal)
		}
	}()
	return work()
}

package process

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/containerd/errdefs"
)

const (
	// slotsPerCPU is how many execs of a container may be on their way into it at a time, for each
	// CPU. More of them would not be sooner inside: what they do is work for the CPU.
	slotsPerCPU = 2
	// mostWaiting is how many more may wait for that. Each costs a few kilobytes.
	mostWaiting = 1000
)

// slots bound how many runtime commands one container has at a time, so that a storm of execs is a
// queue and not a crowd. Each container has its own: the stuck execs of one keep no other waiting.
type slots struct {
	free    chan struct{} // holds a token for each command that may run now
	waiting atomic.Int32
}

func newSlots() *slots {
	s := &slots{free: make(chan struct{}, slotsPerCPU*max(runtime.NumCPU(), 2))}
	for range cap(s.free) {
		s.free <- struct{}{}
	}
	return s
}

// take waits for a slot, in the order of coming, and no longer than ctx. If too many wait already the
// error is errdefs.ErrResourceExhausted.
func (s *slots) take(ctx context.Context, what string) error {
	select {
	case <-s.free:
		return nil
	default:
	}
	if s.waiting.Add(1) > mostWaiting {
		s.waiting.Add(-1)
		return fmt.Errorf("cannot start %s: %d others wait for their turn already; try again later: %w",
			what, mostWaiting, errdefs.ErrResourceExhausted)
	}
	defer s.waiting.Add(-1)
	select {
	case <-s.free:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for other execs before %s: %w", what, ctx.Err())
	}
}

func (s *slots) give() { s.free <- struct{}{} }

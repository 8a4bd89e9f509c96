package process

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// slotsPerCPU is how many execs of a container may be on their way into it at a time, for each
	// CPU. More of them would not be sooner inside: what they do is work for the CPU, and some waiting for
	// each other in the kernel. Ten at once on two CPUs take 96 ms with 2, and 91 with 3, 4 or 6.
	slotsPerCPU = 3
	// mostWaiting is how many more may wait for that. Each costs a few kilobytes.
	mostWaiting = 1000
	// pausePatience is how long a pause waits for execs that are on their way into the container.
	pausePatience = 2 * time.Second
)

// slots bound how many runtime commands one container has at a time, so that a storm of execs is a
// queue and not a crowd. Each container has its own: the stuck execs of one keep no other waiting.
type slots struct {
	free    chan struct{} // holds a token for each command that may run now
	waiting atomic.Int32

	mu   sync.Mutex    // guards what follows
	back chan struct{} // where tokens are given back to: free, or what takeAll made for itself
}

func newSlots() *slots {
	s := &slots{free: make(chan struct{}, slotsPerCPU*max(runtime.NumCPU(), 2))}
	s.back = s.free
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

// give gives a slot back. It never waits: there is room for all tokens.
func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back <- struct{}{}
}

// takeAll waits until no command runs, ahead of those who wait for a slot, and keeps them from beginning
// until release is called. It waits no longer than ctx, and says whether it has all slots. One caller at
// a time may have them.
func (s *slots) takeAll(ctx context.Context) (release func(), all bool) {
	mine := make(chan struct{}, cap(s.free))
	s.giveTo(mine)
	taken := 0
	release = func() {
		s.giveTo(s.free)
		for range taken + len(mine) {
			s.free <- struct{}{}
		}
	}
	for ; taken < cap(s.free); taken++ {
		select {
		case <-mine:
		case <-s.free:
		case <-ctx.Done():
			return release, false
		}
	}
	return release, true
}

func (s *slots) giveTo(c chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = c
}

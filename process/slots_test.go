package process

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
)

func TestSlotsAreBounded(t *testing.T) {
	s := newSlots()
	n := cap(s.free)
	for range n {
		if err := s.take(t.Context(), "e"); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	errs := make(chan error, mostWaiting)
	ctx, cancel := context.WithCancel(t.Context())
	for range mostWaiting {
		all.Go(func() { errs <- s.take(ctx, "e") })
	}
	for end := time.Now().Add(10 * time.Second); s.waiting.Load() < mostWaiting; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d wait", s.waiting.Load())
		}
	}
	if err := s.take(t.Context(), "e"); !errors.Is(err, errdefs.ErrResourceExhausted) {
		t.Errorf("one more: %v", err)
	}
	s.give()
	if err := <-errs; err != nil {
		t.Errorf("the one that got the slot: %v", err)
	}
	cancel()
	for range mostWaiting - 1 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("one that gave up: %v", err)
		}
	}
	all.Wait()
	for range n {
		s.give()
	}
	if len(s.free) != n || s.waiting.Load() != 0 {
		t.Errorf("%d slots are free, want %d; %d wait", len(s.free), n, s.waiting.Load())
	}
}

// Whoever wants all slots waits for those who have one, not for those who wait.
func TestPauseGoesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		var done atomic.Int32
		var all sync.WaitGroup
		for range 10 * cap(s.free) {
			all.Go(func() {
				if err := s.take(t.Context(), "e"); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				done.Add(1)
				s.give()
			})
		}
		synctest.Wait()
		release, ok := s.takeAll(t.Context())
		if n := done.Load(); !ok || n != int32(cap(s.free)) { //nolint:gosec // a few
			t.Errorf("has them all: %v, after %d, want %d", ok, n, cap(s.free))
		}
		release()
		all.Wait()
	})
}

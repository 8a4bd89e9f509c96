package oom

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/cgroup"
)

// Watch reports the OOM kills of one group. The zero value, like nil, is a Watch that never
// reports.
//
// Its methods may be called concurrently, but not from within a report.
type Watch struct {
	counter *os.File // memory.events or memory.oom_control; nil if there is nothing to watch
	wake    *os.File // what the goroutine waits on: the counter itself, an eventfd, or nil

	// kills is the highest count so far. The goroutine of Start writes it and what follows, and
	// Close once that has ended.
	kills  atomic.Uint64
	limits limits
	// followed is how often a limit of the container was hit that a kill has followed, or none for some time; only
	// in version 2.
	followed atomic.Uint64
	hit      bool // version 1: the eventfd has fired since the last kill

	closing   atomic.Bool    // set before the goroutines are interrupted,
	ending    chan struct{}  // and closed then
	following sync.WaitGroup // the goroutine that follows the nearest level, if there is one
	closed    sync.Once

	mu     sync.Mutex         // guards what follows
	report func(limit string) // set by Start
	ended  chan struct{}      // closed by the goroutine when it ends; nil before Start
}

// Open begins to watch the group: kills that it has counted by now are not reported. It returns a
// Watch that never reports if the group has no memory controller of its own or has gone.
//
// Where the kernel refuses to notify (version 1 without root, or in a real-time kernel), kills are
// noticed by Close only.
func Open(g *cgroup.Group) (*Watch, error) {
	dir, unified, ok := g.Memory()
	if !ok {
		return &Watch{}, nil
	}
	w, err := open(dir, unified)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return &Watch{}, nil // it went in between
	}
	if err != nil {
		return nil, fmt.Errorf("watch for OOM kills in %s: %w", dir, err)
	}
	return w, nil
}

// open opens the descriptors and reads the count so far.
func open(dir string, unified bool) (*Watch, error) {
	w := &Watch{ending: make(chan struct{})}
	var err error
	if unified {
		err = w.open2(dir)
	} else {
		err = w.open1(dir)
	}
	if err == nil {
		var n counts
		if n, err = count(w.counter); err == nil {
			w.kills.Store(n.kills)
			w.limits.ooms = n.ooms
			w.followed.Store(n.ooms)
			w.limits.find(dir, unified)
			w.limits.nearest.follow(dir, w.limits.above)
			return w, nil
		}
	}
	w.free()
	return nil, err
}

// Start begins to report. It calls report once each time it finds that the count has risen,
// with whose limit was hit (Own, Host, a directory, or ""), never concurrently: from a goroutine
// that Close ends, and from Close. The report must not block. Only the first Start counts, and none
// after Close.
func (w *Watch) Start(report func(limit string)) {
	if w == nil || w.counter == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report != nil || w.closing.Load() {
		return
	}
	w.report = report
	w.ended = make(chan struct{})
	go w.run(w.ended)
	if w.limits.nearest.events != nil {
		w.following.Go(w.runNearest)
	}
}

// Close ends the goroutine, looks at the counter a last time, reports if it rose, and frees the
// descriptors. The kernel counts a kill before it kills: once the process has been reaped, its kill
// has been reported when Close returns. A second Close waits for the first.
func (w *Watch) Close() { w.close(false) }

// CloseAfterKill is Close after the last process of the container has ended by a SIGKILL that nobody
// is known to have sent. If the group has gone with it, as systemd's scopes do, before its counter
// could be read, then that of the group above decides whether it was for memory.
func (w *Watch) CloseAfterKill() { w.close(true) }

func (w *Watch) close(killed bool) {
	if w == nil || w.counter == nil {
		return
	}
	w.closed.Do(func() {
		w.mu.Lock()
		w.closing.Store(true)
		ended := w.ended
		w.mu.Unlock()
		close(w.ending)
		if ended != nil {
			for _, f := range []*os.File{w.wake, w.limits.nearest.events} {
				if f != nil {
					// The kernel's side of a deadline is Go's own timer; open made sure that each has one.
					_ = f.SetReadDeadline(time.Unix(1, 0))
				}
			}
			<-ended
			w.following.Wait()
			if _, err := w.look(); err != nil && killed {
				w.lookAbove()
			}
		}
		w.free()
	})
}

// Kills returns how many OOM kills the group had counted when last looked at. It stays known
// after Close and after the group has vanished.
func (w *Watch) Kills() uint64 {
	if w == nil {
		return 0
	}
	return w.kills.Load()
}

// run reports until Close or until the group vanishes.
func (w *Watch) run(ended chan<- struct{}) {
	defer close(ended)
	switch {
	case w.wake == nil:
	case w.wake == w.counter:
		w.run2()
	default:
		w.run1()
	}
}

// look reads the counter and reports if it rose. The error says that there is no more to come: the
// group has been removed (ENODEV), and what it counted since the last look is lost.
func (w *Watch) look() (rose bool, err error) {
	n, err := count(w.counter)
	if err != nil || n.kills <= w.kills.Load() {
		return false, err
	}
	w.rise(n)
	return true, nil
}

// lookAbove reports a kill that only the group above tells of.
func (w *Watch) lookAbove() {
	if own, lost := w.limits.lost(); lost {
		w.kills.Add(1)
		w.report(w.limits.whose(own))
	}
}

// rise reports that the count has risen.
func (w *Watch) rise(n counts) {
	w.kills.Store(n.kills)
	w.report(w.whose(n))
}

// whose tells for whose limit.
func (w *Watch) whose(n counts) string {
	l := &w.limits
	switch {
	case l.unified:
		own := n.ooms > l.ooms
		l.ooms = n.ooms
		l.see()
		return l.whose(own)
	case w.wake == nil:
		return "" // nobody has told us
	}
	own := w.hasFired()
	w.hit = false
	return l.whose(own)
}

// free closes the descriptors. Nothing was written through them that a Close could lose.
func (w *Watch) free() {
	if w.wake != nil && w.wake != w.counter {
		_ = w.wake.Close()
	}
	if w.counter != nil {
		_ = w.counter.Close()
	}
	w.limits.free()
}

package shim

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"holdfast/internal/reaper"
)

const (
	// quietTime is how long after the last request the shim counts as at rest.
	quietTime = 2 * time.Second
	// manyRequests is after how many requests a collection of garbage is worth it. It needs 0.1 MiB that
	// stay, or 0.4 without internal/tune; a hundred requests leave 0.7.
	manyRequests = 100
	// restThreads is what a shim at rest needs: one that waits for the kernel's news (epoll), one for
	// signals, the Go runtime's monitor, the one that starts others on behalf of those that goroutines
	// are locked to, and the first one, which cannot end and serves a request while another is in the
	// kernel. If fewer were left Go would start new ones.
	restThreads = 5
	// maxSheds is how often it is tried to come down to so many.
	maxSheds = 3
)

// tidier gives back to the system what the shim does not need at rest: threads whenever it comes to
// rest, and memory after much work. Go's runtime begins to collect garbage at 4 MiB, and what it has
// collected it keeps for later; threads it keeps for ever.
type tidier struct {
	timer    *time.Timer
	armed    atomic.Bool  // the timer will call tidy
	began    time.Time    // for last
	last     atomic.Int64 // when the last request was, in nanoseconds since began
	requests atomic.Int32 // since the last collection
	gather   func()       // moves what is kept for long together
	collect  func()       // debug.FreeOSMemory, except in tests
	shed     func() bool  // reaper.ShedThreads, except in tests
	sheds    atomic.Int32 // since the last request
}

func newTidier(gather func()) *tidier {
	return newTidierWith(gather, debug.FreeOSMemory, func() bool { return reaper.ShedThreads(restThreads) })
}

func newTidierWith(gather, collect func(), shed func() bool) *tidier {
	t := &tidier{gather: gather, collect: collect, shed: shed, began: time.Now()}
	t.armed.Store(true)
	t.timer = time.AfterFunc(quietTime, t.tidy)
	return t
}

// arm has tidy called in d, unless it will be anyway.
func (t *tidier) arm(d time.Duration) {
	if !t.armed.Swap(true) {
		t.timer.Reset(d)
	}
}

// later tells of a request, which puts tidying off. It leaves the timer of an earlier one alone.
func (t *tidier) later() {
	t.requests.Add(1)
	t.sheds.Store(0)
	t.last.Store(int64(time.Since(t.began)))
	t.arm(quietTime)
}

func (t *tidier) tidy() {
	t.armed.Store(false) // first: a request from here on arms it again
	if quiet := time.Since(t.began) - time.Duration(t.last.Load()); quiet < quietTime {
		t.arm(quietTime - quiet)
		return
	}
	if t.requests.Load() >= manyRequests {
		t.requests.Store(0)
		t.shed() // or their stacks would become free after the last collection
		t.collect()
		t.gather() // into what has just become free; what it leaves is garbage
		t.collect()
	}
	// After the collection, which may have started threads.
	if !t.shed() && t.sheds.Add(1) < maxSheds {
		t.arm(quietTime)
	}
}

package shim

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	// quietTime is how long after the last request the shim counts as at rest.
	quietTime = 2 * time.Second
	// manyRequests is after how many requests a collection of garbage is worth it. It needs 0.4 MiB that
	// stay, as much as a hundred requests leave.
	manyRequests = 100
)

// tidier gives memory back to the system when the shim comes to rest after much work. Go's runtime begins
// to collect garbage at 4 MiB, and what it has collected it keeps for later.
type tidier struct {
	timer    *time.Timer
	requests atomic.Int32 // since the last collection
	collect  func()       // debug.FreeOSMemory, except in tests
}

func newTidier() *tidier { return newTidierWith(debug.FreeOSMemory) }

func newTidierWith(collect func()) *tidier {
	t := &tidier{collect: collect}
	t.timer = time.AfterFunc(quietTime, t.tidy)
	return t
}

// later tells of a request, which puts tidying off.
func (t *tidier) later() {
	t.requests.Add(1)
	t.timer.Reset(quietTime)
}

func (t *tidier) tidy() {
	if t.requests.Load() >= manyRequests {
		t.requests.Store(0)
		t.collect()
	}
}

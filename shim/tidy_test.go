package shim

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Garbage is collected when the shim comes to rest after many requests, and not before, nor after a few: twice,
// with what is kept moved in between.
// Threads are shed at each rest.
func TestGarbageIsCollectedAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var collections, gathered, sheddings atomic.Int32
		var stubborn atomic.Bool // threads do not go
		gather := func() {
			if collections.Load() == 0 {
				t.Error("what is kept was moved among garbage, not after a collection")
			}
			gathered.Store(collections.Load())
		}
		collect := func() {
			if n := collections.Add(1); n%2 == 0 && gathered.Load() != n-1 {
				t.Error("nothing was moved between two collections")
			}
		}
		tidier := newTidierWith(gather, collect, func() bool { sheddings.Add(1); return !stubborn.Load() })
		after := func(requests int, every time.Duration, want int32) {
			t.Helper()
			for range requests {
				tidier.later()
				time.Sleep(every)
			}
			synctest.Wait()
			if collections := collections.Load(); collections != 2*want {
				t.Errorf("%d collections after %d requests, one every %v; want %d", collections, requests, every, 2*want)
			}
		}
		after(manyRequests-1, 2*quietTime, 0)
		after(1, 2*quietTime, 1)
		after(10*manyRequests, quietTime/2, 1) // no rest
		time.Sleep(quietTime)
		after(1, 0, 2)
		time.Sleep(time.Hour)
		shed := sheddings.Load()
		after(1, 2*quietTime, 2)
		after(3, quietTime/2, 2)
		time.Sleep(time.Hour)
		if got := sheddings.Load() - shed; got != 2 {
			t.Errorf("threads were shed %d times at two rests", got)
		}
		stubborn.Store(true)
		shed = sheddings.Load()
		after(1, time.Hour, 2)
		after(1, time.Hour, 2)
		if got := sheddings.Load() - shed; got != 2*maxSheds {
			t.Errorf("it was tried %d times at two rests to shed threads that do not go, want %d", got, 2*maxSheds)
		}
	})
}

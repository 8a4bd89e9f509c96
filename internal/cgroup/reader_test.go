package cgroup

import (
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/api/stats1"
)

// quick is what a call for statistics may take (demand A9.95). Machines that are emulated are some
// twenty times as slow.
var quick = map[bool]time.Duration{false: 200 * time.Microsecond, true: 4 * time.Millisecond}[os.Getenv("HOLDFAST_TEST_BINARIES") != ""]

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestWhoAsksAgainForStatisticsFindsTheFilesOpen(t *testing.T) {
	s := newSandbox(t, false)
	g := s.of(s.run("exec sleep 1000").Process.Pid)
	synctest.Test(t, func(t *testing.T) {
		before := openFiles(t)
		check := func(when string, kept bool) {
			t.Helper()
			if now := openFiles(t); now > before != kept {
				t.Errorf("%s: %d files are open, %d before", when, now, before)
			}
		}
		for range 3 {
			statsOf(t, g)
			synctest.Wait()
			check("asked once in a while", false)
			time.Sleep(keepFor)
		}
		statsOf(t, g)
		for range 3 {
			statsOf(t, g)
			check("asked twice", true)
			time.Sleep(keepFor - time.Millisecond)
			check("asked shortly before", true)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		check("nobody asks any more", false)
	})
}

// Whoever comes while the open files are in use opens his own: nobody waits.
func TestStatisticsAreAskedForByManyAtOnce(t *testing.T) {
	s := newSandbox(t, false)
	g := s.of(s.run("exec sleep 1000").Process.Pid)
	synctest.Test(t, func(t *testing.T) {
		before := openFiles(t)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if _, err := g.Stats(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(keepFor)
		synctest.Wait()
		if after := openFiles(t); after > before {
			t.Errorf("%d files are open, %d before", after, before)
		}
	})
}

// In version 1 a group goes hierarchy by hierarchy, also while its files are open.
func TestStatisticsOfWhatGoesWhileItsFilesAreOpenAreLeftOut(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("exec sleep 1000")
	g := s.of(p.Process.Pid)
	if g.Unified() {
		t.Skip("there is only one hierarchy")
	}
	for range 3 {
		statsOf(t, g)
	}
	_ = p.Process.Kill()
	<-p.done
	dir, _, ok := g.Memory()
	if !ok {
		t.Fatal("no memory group")
	}
	rmdir(t, dir)
	if m := statsOf(t, g).(*stats1.Metrics); m.Memory != nil || m.MemoryOomControl != nil || m.Pids == nil {
		t.Errorf("got %v", m)
	}
	for _, dir := range s.dirs {
		rmdir(t, dir)
	}
	if _, err := g.Stats(); !errors.Is(err, ErrGone) {
		t.Errorf("without any: %v", err)
	}
}

// The best of many calls tells what a call takes, and the others what else the machine does. Who asks
// now and then also pays for caches that others have filled meanwhile, and is given twice as long.
func TestStatisticsAreQuick(t *testing.T) {
	s := newSandbox(t, false)
	g := s.of(s.run("exec sleep 1000").Process.Pid)
	best := func(before func()) time.Duration {
		best := time.Hour
		for range 200 {
			before()
			began := time.Now()
			statsOf(t, g)
			best = min(best, time.Since(began))
		}
		return best
	}
	nowAndThen := best(func() {
		g.asked.Store(nil)               // so that no file is kept open
		time.Sleep(2 * time.Millisecond) // in which those of the last call are closed
	})
	again := best(func() {})
	t.Logf("%v now and then, %v again and again", nowAndThen, again)
	if again > quick || nowAndThen > 2*quick {
		t.Errorf("more than %v", quick)
	}
}

func BenchmarkStats(b *testing.B) {
	s := newSandbox(b, false)
	g := s.of(s.run("exec sleep 1000").Process.Pid)
	for _, row := range []struct {
		name  string
		forgo bool // the open files
	}{{"now and then", true}, {"again and again", false}} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if row.forgo {
					g.asked.Store(nil)
				}
				if _, err := g.Stats(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

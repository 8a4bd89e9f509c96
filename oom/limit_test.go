package oom

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pod makes a group with a limit and one below it for each container. Limits of 0 are none.
func (h hierarchy) pod(t *testing.T, bytes int, containers ...int) (pod string, dirs []string) {
	t.Helper()
	pod = h.group(t)
	if h.unified {
		write(t, pod+"/cgroup.subtree_control", "+memory")
	} else {
		write(t, pod+"/memory.use_hierarchy", "1")
	}
	if bytes != 0 {
		h.limit(t, pod, bytes)
	}
	base := pod[len(h.point)+1:]
	for i, bytes := range containers {
		dir := h.mkdir(t, base+"/c"+strconv.Itoa(i))
		if bytes != 0 {
			h.limit(t, dir, bytes)
		}
		dirs = append(dirs, dir)
	}
	return pod, dirs
}

// c/7275411ec: with a limit on the pod, "oom" rises there only, and the container was not reported.
func TestReportTellsWhoseLimitItWas(t *testing.T) {
	h := memoryHierarchy(t)
	for name, row := range map[string]struct {
		pod, container int
		ours, theirs   bool // what may be said
	}{
		"the container's alone":   {0, 16 * mib, true, false},
		"the container's is less": {64 * mib, 16 * mib, true, false},
		"the pod's is less":       {16 * mib, 64 * mib, false, true},
		"the pod's alone":         {16 * mib, 0, false, true},
		// The pod is charged for what the kernel keeps of its container, so it may reach its limit first.
		"both are the same": {16 * mib, 16 * mib, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			pod, dirs := h.pod(t, row.pod, row.container)
			c := start(t, dirs[0], eat+"; echo killed; read go; exec "+eat)
			w, reports := c.watch(t)
			check := func(when string) {
				got := reports.limit.Load()
				if !(row.ours && got == Own || row.theirs && got == pod) {
					t.Errorf("%s: the limit is %q", when, got)
				}
			}
			c.goOn(t)
			c.says(t, "killed")
			eventually(t, "a report", func() bool { return reports.Load() == 1 })
			check("killed while init lives")
			c.goOn(t)
			if sig := c.wait(t); sig != unix.SIGKILL {
				t.Errorf("ended by %v", sig)
			}
			w.CloseAfterKill()
			check("init is killed")
			if n := reports.Load(); n != 2 {
				t.Errorf("%d reports", n)
			}
		})
	}
}

// A limit further up is named, too.
func TestLimitOfAGroupFarAboveIsNamed(t *testing.T) {
	h := memoryHierarchy(t)
	pod, dirs := h.pod(t, 16*mib, 0)
	if h.unified {
		write(t, dirs[0]+"/cgroup.subtree_control", "+memory")
	}
	dir := h.mkdir(t, dirs[0][len(h.point)+1:]+"/below")
	c := start(t, dir, "exec "+eat)
	w, reports := c.watch(t)
	c.goOn(t)
	c.wait(t)
	w.Close()
	if got := reports.limit.Load(); got != pod {
		t.Errorf("the limit is %q, want %q", got, pod)
	}
}

// A kill by the pod's limit is told of its victim alone, and is not the limit that kills another
// container later.
func TestLimitThatKilledANeighbourIsForgotten(t *testing.T) {
	h := memoryHierarchy(t)
	pod, dirs := h.pod(t, 24*mib, 12*mib, 0)
	c, c2 := start(t, dirs[0], "exec "+eat), start(t, dirs[1], "exec "+eat)
	w, reports := c.watch(t)
	w2, others := c2.watch(t)
	c2.goOn(t)
	c2.wait(t)
	w2.Close()
	if got := others.limit.Load(); got != pod {
		t.Errorf("the neighbour: the limit is %q, want %q", got, pod)
	}
	if !h.unified {
		time.Sleep(2*lastPause + time.Second) // for as long the kill could still be c's
	}
	c.goOn(t)
	c.wait(t)
	w.Close()
	if got := reports.limit.Load(); got != Own || reports.Load() != 1 {
		t.Errorf("%d reports; the limit is %q, want %q", reports.Load(), got, Own)
	}
}

// With the systemd driver the scope goes with its last process, perhaps before we are scheduled.
func TestKillInAGroupThatHasGoneIsFoundAbove(t *testing.T) {
	h := memoryHierarchy(t).need(t, true)
	for name, row := range map[string]struct {
		script         string
		pod, container int
		limit          string // "pod": its directory; "": no report
	}{
		"its own limit":      {"exec " + eat, 0, 16 * mib, Own},
		"the pod's limit":    {"exec " + eat, 16 * mib, 0, "pod"},
		"killed by somebody": {"kill -9 $$", 0, 16 * mib, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod, dirs := h.pod(t, row.pod, row.container)
			c := start(t, dirs[0], row.script)
			w, err := Open(c.group)
			if err != nil {
				t.Fatal(err)
			}
			w.wake = nil // the goroutine never gets its turn
			var got []string
			w.Start(func(limit string) { got = append(got, limit) })
			c.goOn(t)
			if sig := c.wait(t); sig != unix.SIGKILL {
				t.Fatalf("ended by %v, not killed", sig)
			}
			rmdir(t, dirs[0])
			w.CloseAfterKill()
			var want []string
			if row.limit != "" {
				want = []string{strings.Replace(row.limit, "pod", pod, 1)}
			}
			if !slices.Equal(got, want) {
				t.Errorf("reports %q, want %q", got, want)
			}
		})
	}
}

// What a neighbour has lost is not ours, even if our scope has gone before anybody looked at it.
func TestKillOfANeighbourIsNotOurs(t *testing.T) {
	h := memoryHierarchy(t).need(t, true)
	pod, _ := h.pod(t, 0, 0)
	within := func(name string) string {
		return h.mkdir(t, filepath.Join(filepath.Base(pod), name))
	}
	for round, limit := range []string{"none", Own} {
		neighbour, ours := within(fmt.Sprint("neighbour", round)), within(fmt.Sprintf("ours%d.scope", round))
		h.limit(t, neighbour, 16*mib)
		h.limit(t, ours, 16*mib)
		script := "kill -9 $$"
		if limit == Own {
			script = "exec " + eat
		}
		c, other := start(t, ours, script), start(t, neighbour, "exec "+eat)
		w, err := Open(c.group)
		if err != nil {
			t.Fatal(err)
		}
		w.wake = nil // the goroutine never gets its turn
		got := "none"
		w.Start(func(limit string) { got = limit })
		other.goOn(t)
		other.wait(t)
		eventually(t, "the neighbour's loss is known", func() bool {
			w.limits.nearest.mu.Lock()
			defer w.limits.nearest.mu.Unlock()
			return w.limits.nearest.seen.kills == uint64(round+1)
		})
		c.goOn(t)
		if sig := c.wait(t); sig != unix.SIGKILL {
			t.Fatalf("ended by %v, not killed", sig)
		}
		rmdir(t, ours)
		w.CloseAfterKill()
		if got != limit {
			t.Errorf("the limit is %q, want %q", got, limit)
		}
	}
}

// Watching the levels above costs descriptors in version 1, for those that have a limit.
func TestLevelsAboveAreFreed(t *testing.T) {
	_, dirs := memoryHierarchy(t).pod(t, 64*mib, 16*mib)
	c := start(t, dirs[0], "exit 0")
	before := descriptors(t)
	for range 100 {
		w, err := Open(c.group)
		if err != nil {
			t.Fatal(err)
		}
		w.Start(func(string) { t.Error("reported") })
		w.Close()
	}
	if after := descriptors(t); after != before {
		t.Errorf("descriptors before:\n%safter:\n%s", before, after)
	}
}

// The kernel counts first that a limit was hit, and then the kill: who looks at the level above in between must not
// take the former for a neighbour's. Files stand for the kernel's here, since it seldom pauses there.
func TestHitBeforeItsKillIsNotANeighbours(t *testing.T) {
	pod := t.TempDir()
	ours := filepath.Join(pod, "ours.scope")
	if err := os.Mkdir(ours, 0o700); err != nil {
		t.Fatal(err)
	}
	says := func(dir string, ooms, kills int) {
		t.Helper()
		for _, name := range []string{"memory.events", "memory.events.local"} {
			n := ooms
			if dir == pod && name != "memory.events" {
				n = 0 // the pod's own limit was not hit
			}
			if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "oom %d\noom_kill %d\n", n, kills), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	says(pod, 0, 0)
	says(ours, 0, 0)
	counter, err := openFile(filepath.Join(ours, "memory.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer counter.Close()
	w := &Watch{counter: counter}
	w.limits.find(ours, true)
	look := func() {
		t.Helper()
		if err := w.neighbours(); err != nil {
			t.Fatal(err)
		}
	}
	says(pod, 1, 1) // a neighbour's
	look()
	says(ours, 1, 0)
	says(pod, 2, 1)
	look()
	says(pod, 2, 2)
	if own, lost := w.limits.lost(); !own || !lost {
		t.Errorf("our own limit was hit, and a process is lost: %v, %v", own, lost)
	}
	// One that nothing was killed for, as who follows it has found, does not count any more.
	w.followed.Store(1)
	look()
	says(pod, 2, 3)
	if own, lost := w.limits.lost(); own || !lost {
		t.Errorf("the host has killed: %v, %v", own, lost)
	}
}

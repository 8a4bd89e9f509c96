package oom

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// c/842cb99a5, c/8ac7e3c06: kills right after the start, or of the process whose exit ends the
// container, were missed or came after the exit.
func TestKillOfInitIsReportedOnceBeforeCloseReturns(t *testing.T) {
	h := memoryHierarchy(t)
	for round := range 30 {
		dir := h.group(t)
		h.limit(t, dir, 16*mib)
		c := start(t, dir, "exec "+eat)
		w, reports := c.watch(t)
		c.goOn(t)
		if sig := c.wait(t); sig != unix.SIGKILL {
			t.Fatalf("round %d: ended by %v, not killed", round, sig)
		}
		w.Close()
		if n := reports.Load(); n != 1 || w.Kills() != 1 {
			t.Fatalf("round %d: %d reports, %d kills", round, n, w.Kills())
		}
		rmdir(t, dir)
	}
}

// In a pod several processes may be killed while init lives on, long before Close.
func TestKillsAreReportedWhileInitLives(t *testing.T) {
	h := memoryHierarchy(t)
	dir := h.group(t)
	h.limit(t, dir, 16*mib)
	c := start(t, dir, fmt.Sprintf("for i in 1 2 3; do %s; echo killed; read go; done", eat))
	w, reports := c.watch(t)
	for kill := range int32(3) {
		c.goOn(t)
		c.says(t, "killed")
		eventually(t, "a report", func() bool { return reports.Load() == kill+1 })
	}
	c.goOn(t)
	if sig := c.wait(t); sig != 0 {
		t.Errorf("init was ended by %v", sig)
	}
	w.Close()
	if n := reports.Load(); n != 3 || w.Kills() != 3 {
		t.Errorf("%d reports, %d kills", n, w.Kills())
	}
}

// A group killed as a whole (memory.oom.group) has one kill for each process, and one for the group;
// kernels count the first victim once or twice.
func TestKillOfAWholeGroupIsReported(t *testing.T) {
	h := memoryHierarchy(t).need(t, true)
	dir := h.group(t)
	h.limit(t, dir, 16*mib)
	write(t, dir+"/memory.oom.group", "1")
	c := start(t, dir, eat+"; echo survived")
	w, reports := c.watch(t)
	c.goOn(t)
	if sig := c.wait(t); sig != unix.SIGKILL {
		t.Fatalf("ended by %v, not killed", sig)
	}
	w.Close()
	if n := reports.Load(); n < 1 || uint64(n) > w.Kills() || w.Kills() < 2 {
		t.Errorf("%d reports, %d kills of two processes", n, w.Kills())
	}
}

// c/821c961c8: in version 1 the eventfd fires when the group is removed.
func TestRemovalOfTheGroupIsNoKill(t *testing.T) {
	dir := memoryHierarchy(t).group(t)
	c := start(t, dir, "exit 0")
	w, reports := c.watch(t)
	c.goOn(t)
	c.wait(t)
	rmdir(t, dir)
	eventually(t, "the watcher notices, or has nothing to notice", func() bool {
		select {
		case <-w.ended:
			return true
		default:
			_, err := count(w.counter)
			return err != nil && w.wake == w.counter // version 2 need not wake those who poll
		}
	})
	w.Close()
	if n := reports.Load(); n != 0 {
		t.Errorf("%d reports", n)
	}
}

// With the systemd driver the scope goes with its last process.
func TestKillsStayKnownWhenTheGroupHasGone(t *testing.T) {
	h := memoryHierarchy(t)
	dir := h.group(t)
	h.limit(t, dir, 16*mib)
	c := start(t, dir, eat+"; echo killed; read go")
	w, reports := c.watch(t)
	c.goOn(t)
	c.says(t, "killed")
	eventually(t, "a report", func() bool { return reports.Load() == 1 })
	c.goOn(t)
	c.wait(t)
	rmdir(t, dir)
	w.Close()
	if n := reports.Load(); n != 1 || w.Kills() != 1 {
		t.Errorf("%d reports, %d kills", n, w.Kills())
	}
}

// What happened before Open is an old story: groups may be handed on.
func TestKillsBeforeOpenAreNotReported(t *testing.T) {
	h := memoryHierarchy(t)
	dir := h.group(t)
	h.limit(t, dir, 16*mib)
	c := start(t, dir, eat+"; echo killed; read go")
	c.goOn(t)
	c.says(t, "killed")
	w, reports := c.watch(t)
	if w.Kills() != 1 {
		t.Errorf("%d kills at Open", w.Kills())
	}
	c.goOn(t)
	c.wait(t)
	w.Close()
	if n := reports.Load(); n != 0 {
		t.Errorf("%d reports", n)
	}
}

// Where the kernel does not notify, Close still looks.
func TestCloseLooksWithoutNotification(t *testing.T) {
	h := memoryHierarchy(t).need(t, false)
	dir := h.group(t)
	h.limit(t, dir, 16*mib)
	c := start(t, dir, "exec "+eat)
	w, err := Open(c.group)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.wake.Close(); err != nil { // the kernel forgets the registration
		t.Fatal(err)
	}
	w.wake = nil
	reports := 0
	w.Start(func(string) { reports++ })
	c.goOn(t)
	c.wait(t)
	w.Close()
	if reports != 1 {
		t.Errorf("%d reports", reports)
	}
}

func TestCloseIsIdempotentInAnyState(t *testing.T) {
	dir := memoryHierarchy(t).group(t)
	c := start(t, dir, "exit 0")
	for _, state := range []string{"nil", "zero", "opened", "started", "closed"} {
		var w *Watch
		switch state {
		case "zero":
			w = &Watch{}
		case "opened", "started", "closed":
			var err error
			if w, err = Open(c.group); err != nil {
				t.Fatal(err)
			}
		}
		report := func(string) { t.Errorf("%s: reported", state) }
		if state == "started" {
			w.Start(report)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(w.Close)
		}
		all.Wait()
		w.Start(report)
		w.Close()
	}
}

func TestAGroupWithoutMemoryNeverReports(t *testing.T) {
	w, err := Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Start(func(string) { t.Error("reported") })
	w.Close()
	if w.Kills() != 0 {
		t.Errorf("%d kills", w.Kills())
	}
}

// c/66508589d, c/537d82d54: eventfds and entries of watchers leaked.
func TestNothingLeaksOverAThousandWatches(t *testing.T) {
	dir := memoryHierarchy(t).group(t)
	c := start(t, dir, "exit 0")
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 1000 {
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
	eventually(t, "no goroutine left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// descriptors lists our open files.
func descriptors(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // not that of ReadDir itself
			fmt.Fprintf(&b, "%s %s\n", e.Name(), link)
		}
	}
	return b.String()
}

// Waiting must not cost threads: a node has hundreds of containers.
func TestWatchesWaitWithoutThreads(t *testing.T) {
	dir := memoryHierarchy(t).group(t)
	c := start(t, dir, "exit 0")
	const many = 100
	before := threads(t)
	for range many {
		c.watch(t)
	}
	if after := threads(t); after > before+many/4 {
		t.Errorf("%d threads before, %d with %d watches", before, after, many)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCountIsTheHigherOfTheTwo(t *testing.T) {
	for in, want := range map[string]counts{
		"low 0\nhigh 0\nmax 52\noom 9\noom_kill 3\noom_group_kill 1\n": {kills: 3, ooms: 9},
		"oom 9\noom_kill 3\noom_group_kill 4\n":                        {kills: 4, ooms: 9},
		"oom_kill_disable 1\nunder_oom 1\noom_kill 7\n":                {kills: 7},
		"oom_kill_disable 0\nunder_oom 0\n":                            {}, // before Linux 4.13
		"oom_kill many\noom_kill":                                      {},
		"":                                                             {},
	} {
		if got := parse(in); got != want {
			t.Errorf("parse(%q) = %+v, want %+v", in, got, want)
		}
	}
}

func FuzzCount(f *testing.F) {
	for _, seed := range []string{
		"low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
		"low 0\nhigh 0\nmax 1234\noom 17\noom_kill 3\noom_group_kill 1\nsock_throttled 0\n",
		"oom_kill_disable 0\nunder_oom 0\noom_kill 18446744073709551615\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// Figures that we do not know change nothing.
		if got := parse(s + "\noom_kills 99999\nooms 88888\n"); got != parse(s) {
			t.Errorf("%+v, with others %+v", parse(s), got)
		}
	})
}

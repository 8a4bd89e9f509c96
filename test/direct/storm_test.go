package direct

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

// Variables that change how much is done; without them it is what fits into a CI run.
const (
	execsVariable  = "HOLDFAST_EXECS"
	cyclesVariable = "HOLDFAST_CYCLES"
	parallel       = 8
)

// amount returns how often to do something.
func amount(t *testing.T, variable string, normal int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return normal
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", variable, text)
	}
	return n
}

// full is how often a real runtime does it: n times, but less when the test is repeated with another.
func full(n int) int {
	if os.Getenv(runtimeVariable) != "" {
		return n / 20
	}
	return n
}

// spread calls do(0) to do(n-1), some at a time, and stops at the first error.
func spread(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	next := make(chan int)
	failed := make(chan error, parallel)
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					failed <- fmt.Errorf("number %d: %w", i, err)
					return
				}
			}
		})
	}
	var first error
	for i := 0; i < n && first == nil; i++ {
		select {
		case next <- i:
		case first = <-failed:
		}
	}
	close(next)
	all.Wait()
	select {
	case err := <-failed:
		if first == nil {
			first = err
		}
	default:
	}
	if first != nil {
		t.Fatal(first)
	}
}

// scripted runs the part of a test that is for the fake runtime, unless all is repeated with a real
// one.
func scripted(t *testing.T, part func(*testing.T)) {
	if os.Getenv(runtimeVariable) == "" {
		t.Run("scripted", part)
	}
}

// oneExec is the life of a short exec, which ends with a status of its own.
func (l *lab) oneExec(container, id string, cfg client.BundleConfig, want uint32) error {
	if err := l.exec(container, id, cfg, nil); err != nil {
		return fmt.Errorf("add: %w", err)
	}
	if _, err := l.start(container, id); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	a, err := l.Wait(within(l.t), &task.WaitRequest{ID: container, ExecID: id})
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	if a.GetExitStatus() != want || client.Time(a.GetExitedAt()).IsZero() {
		return fmt.Errorf("it ended with %v, want status %d", a, want)
	}
	if _, err := l.Delete(within(l.t), &task.DeleteRequest{ID: container, ExecID: id}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

func TestManyShortExecs(t *testing.T) {
	scripted(t, func(t *testing.T) {
		// The fake runtime spares the time of a real one, not the shim's.
		shortExecs(newLab(t, labConfig{options: fake(), bundle: sleeper()}), amount(t, execsVariable, 10_000), func(l *lab) {
			l.script("c1", map[string]step{"exec": {"child": map[string]any{"life": "0s", "exit": 7}}})
		}, 7)
	})
	t.Run("real", func(t *testing.T) {
		shortExecs(newLab(t, labConfig{bundle: sleeper()}), amount(t, execsVariable, full(10_000)), func(*lab) {}, 0)
	})
}

func shortExecs(l *lab, n int, prepare func(*lab), status uint32) {
	l.run("c1", nil)
	prepare(l)
	cfg := client.BundleConfig{Args: []string{"/bin/true"}}
	before := l.census()
	began := time.Now()
	spread(l.t, n, func(i int) error {
		if err := l.caughtUp(3 * i); err != nil {
			return err
		}
		return l.oneExec("c1", fmt.Sprintf("e%d", i), cfg, status)
	})
	took := time.Since(began)
	l.t.Logf("%d execs in %v: %v each, %d at a time", n, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), parallel)
	l.script("c1", nil)
	l.unchanged(before)
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	all := l.Events.All()
	if want := 4 + 3*n; len(all) != want {
		l.t.Errorf("%d events, want %d", len(all), want)
	}
	seen := map[string]int{}
	for _, e := range all {
		seen[e.Topic+" "+e.Exec()]++
	}
	for i := range n {
		for _, topic := range []string{"/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"} {
			if got := seen[fmt.Sprintf("%s e%d", topic, i)]; got != 1 {
				l.t.Errorf("%s of e%d came %d times", topic, i, got)
			}
		}
	}
}

// caughtUp waits until most of n events have arrived. Without that a busy machine, where nobody waits
// for events and they come one by one, leaves thousands behind, and then the shim leaves out those
// that say nothing new.
func (l *lab) caughtUp(n int) error {
	const behind = 1000
	for deadline := time.Now().Add(time.Minute); l.Events.Count() < n-behind; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events have arrived", l.Events.Count(), n)
		}
	}
	return nil
}

// unchanged checks that the shim holds no more than it did.
func (l *lab) unchanged(before leak.Census) {
	l.t.Helper()
	// Threads are Go's own to keep; it needs no more for the next thousand processes than for these.
	const spare = 12
	var now leak.Census
	l.eventually(fmt.Sprintf("the shim holds what it held before: %v; now %v", before, &now), func() bool {
		now = l.census()
		return now.Descriptors() <= before.Descriptors() && now.Threads <= before.Threads+spare
	})
	l.t.Logf("the shim holds %v; before %v", now, before)
}

func TestManyCycles(t *testing.T) {
	scripted(t, func(t *testing.T) { cycles(t, fake(), amount(t, cyclesVariable, 1000)) })
	t.Run("real", func(t *testing.T) { cycles(t, nil, amount(t, cyclesVariable, full(1000))) })
}

// cycles creates, starts, kills and deletes containers beside others in one shim.
func cycles(t *testing.T, opts *options.Options, n int) {
	cfg := sleeper()
	cfg.Annotations = map[string]string{"io.containerd.runc.v2.group": "g"}
	l := newLab(t, labConfig{options: opts, bundle: cfg})
	l.run("c1", nil)
	for i := range parallel {
		l.bundle(fmt.Sprintf("w%d", i), cfg)
	}
	ids := make(chan string, parallel)
	for i := range parallel {
		ids <- fmt.Sprintf("w%d", i)
	}
	cycle := func(int) error {
		id := <-ids
		defer func() { ids <- id }()
		return l.oneLife(id)
	}
	spread(t, parallel, cycle) // what is there once is there now
	before := l.census()
	began := time.Now()
	spread(t, n, cycle)
	took := time.Since(began)
	t.Logf("%d cycles in %v: %v each, %d at a time", n, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), parallel)
	l.unchanged(before)
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	if got, want := len(l.Events.All()), 4*(n+parallel+1); got != want {
		t.Errorf("%d events, want %d", got, want)
	}
}

func (l *lab) oneLife(id string) error {
	if _, err := l.create(id, nil); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := l.start(id, ""); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if _, err := l.Kill(within(l.t), &task.KillRequest{ID: id, Signal: 9}); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	a, err := l.Wait(within(l.t), &task.WaitRequest{ID: id})
	if err != nil || a.GetExitStatus() != 137 {
		return fmt.Errorf("wait: %v, %w", a, err)
	}
	if _, err := l.Delete(within(l.t), &task.DeleteRequest{ID: id}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

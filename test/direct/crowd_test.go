package direct

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// crowded calls do(0) to do(n-1) all at the same time, and returns their errors.
func crowded(n int, do func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errs
}

// Five hundred execs at once all run; the shim does not grow with the crowd, and answers others.
func TestFiveHundredExecsAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const crowd = 500
	const execMemory = 40 // KiB: of one that waits, with its requests and what the collector has not freed yet
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	began := time.Now()
	if err := l.oneExec("c1", "first", client.BundleConfig{Args: []string{"/bin/true"}}, 0); err != nil {
		t.Fatal(err)
	}
	alone := time.Since(began)
	before := l.census()
	stop, most := make(chan struct{}), before
	least := l.anonymous()
	memory := least
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if now := l.census(); now.Threads > most.Threads {
				most = now
			}
			memory = max(memory, l.anonymous())
			began := time.Now()
			if _, err := l.State(context.Background(), &task.StateRequest{ID: "c1"}); err != nil || time.Since(began) > 5*time.Second {
				t.Errorf("State in the crowd: %v, after %v", err, time.Since(began))
			}
		}
	}()
	took := make([]time.Duration, crowd)
	for i, err := range crowded(crowd, func(i int) error {
		began := time.Now()
		defer func() { took[i] = time.Since(began) }()
		return l.oneExec("c1", fmt.Sprint("e", i), client.BundleConfig{Args: []string{"/bin/true"}}, 0)
	}) {
		if err != nil {
			t.Errorf("exec %d: %v", i, err)
		}
	}
	slices.Sort(took)
	t.Logf("an exec alone took %v; of %d at once the half took %v, 99 of 100 %v", alone, crowd, took[crowd/2], took[crowd*99/100])
	if slow := took[crowd*99/100]; slow > 3*crowd*alone {
		t.Errorf("execs take %v in a queue of %d, and %v alone", slow, crowd, alone)
	}
	close(stop)
	<-watched
	// Each runtime command that is under way may keep a thread in a system call.
	if most.Threads > before.Threads+32 {
		t.Errorf("the shim had %d threads, and %d before", most.Threads, before.Threads)
	}
	t.Logf("the shim had up to %d KiB of its own, and %d before", memory, least)
	if memory > least+crowd*execMemory {
		t.Errorf("the shim had %d KiB of its own, and %d before", memory, least)
	}
	l.unchanged(before)
	l.finish("c1")
}

// anonymous returns how much memory of its own the shim has, in KiB.
func (l *lab) anonymous() (kib int) {
	l.t.Helper()
	for line := range strings.Lines(l.read(fmt.Sprintf("/proc/%d/status", l.pid()))) {
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kib); n == 1 {
			return kib
		}
	}
	l.t.Error("the kernel does not tell the memory of the shim")
	return 0
}

// More than can wait are told so, and may try again; nobody is harmed.
func TestTooManyExecsAreRefused(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	l.script("c1", map[string]step{"exec": {"sleep": "500ms", "child": step{"life": "0s", "exit": 7}}})
	const crowd = 1500
	var refused, ran atomic.Int32
	for i, err := range crowded(crowd, func(i int) error {
		id := fmt.Sprint("e", i)
		if err := l.exec("c1", id, sleeper(), nil); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := l.Start(ctx, &task.StartRequest{ID: "c1", ExecID: id})
		switch {
		case errors.Is(err, errdefs.ErrResourceExhausted):
			refused.Add(1)
			err = nil
		case errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil: // the shim's clock, or ours
			err = nil // it has waited for long enough
		case err == nil:
			ran.Add(1)
		}
		return err
	}) {
		if err != nil {
			t.Fatalf("exec %d: %v", i, err)
		}
	}
	t.Logf("%d ran, %d were refused", ran.Load(), refused.Load())
	if refused.Load() < crowd/10 || ran.Load() == 0 {
		t.Errorf("%d ran, %d were refused", ran.Load(), refused.Load())
	}
	l.script("c1", map[string]step{"exec": {"child": step{"life": "0s", "exit": 7}}})
	l.eventually("one more runs", func() bool {
		id := fmt.Sprint("again", rand.Uint32())
		return l.oneExec("c1", id, sleeper(), 7) == nil
	})
	l.finish("c1")
}

// In a pid namespace that is shared the shim ends the execs itself. No runtime command that hangs
// delays their exits (demand.md 1).
func TestExitsOfASharedNamespaceWaitForNoRuntime(t *testing.T) {
	const execs = 64
	cfg := sleeper()
	cfg.HostPID = true
	l := newLab(t, labConfig{options: fake(), bundle: cfg})
	l.run("c1", nil)
	spread(t, execs, func(i int) error {
		id := fmt.Sprint("e", i)
		if err := l.exec("c1", id, sleeper(), nil); err != nil {
			return err
		}
		_, err := l.start("c1", id)
		return err
	})
	l.script("c1", map[string]step{"kill": {"sleep": "30s"}})
	began := time.Now()
	l.kill("c1", "", 9)
	l.event(client.Exits("c1", ""))
	if n := count(l.Events.All(), func(e client.Event) bool { return e.Topic == "/tasks/exit" }); n != execs+1 {
		t.Errorf("%d exits, want %d", n, execs+1)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the exits took %v, while the runtime's kill hung", took)
	}
	l.script("c1", nil)
	l.mustDelete("c1", "")
}

// probesVariable is for how long TestProbedContainersEnd probes: "10m". With it there are 50 containers, and
// the machine is taken to be idle otherwise: most of them have to end in 2 s, though two processors can
// do but a tenth of what is asked.
const probesVariable = "HOLDFAST_PROBES"

// Probes that come all the time, in many containers, do not keep these from ending.
func TestProbedContainersEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	containers, forHowLong, mostly := 20, 5*time.Second, limit
	var relax []order.Option
	if text := os.Getenv(probesVariable); text != "" {
		var err error
		if forHowLong, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		containers, mostly = 50, 2*time.Second
		relax = []order.Option{order.Compacted} // more than 4,096 events come to wait
	}
	l := newLab(t, labConfig{bundle: grouped(sleeper(), "g"), relax: relax})
	ids := []string{"c1"}
	for i := 2; i <= containers; i++ {
		ids = append(ids, fmt.Sprint("c", i))
		l.join(ids[i-1], grouped(sleeper(), "g"))
	}
	var tally probeTally
	end := time.Now().Add(forHowLong)
	for i, err := range crowded(containers, func(i int) error {
		for time.Now().Before(end) {
			if err := l.probed(ids[i], &tally); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Errorf("%s: %v", ids[i], err)
		}
	}
	slices.Sort(tally.ends)
	n := len(tally.ends)
	if n == 0 {
		t.Fatal("no container has ended")
	}
	half, slow, slowest := tally.ends[n/2], tally.ends[n*99/100], tally.ends[n-1]
	t.Logf("%d probes succeeded, %d did not, in %d lives; ends took %v, 99 of 100 at most %v, the slowest %v",
		tally.well, tally.ill, n, half, slow, slowest)
	if half > mostly {
		t.Errorf("ends took %v, more than %v", half, mostly)
	}
}

// probeTally counts what probes found. Its methods may be called concurrently.
type probeTally struct {
	mu        sync.Mutex
	well, ill int
	ends      []time.Duration // from kills to exits
}

func (y *probeTally) probed(err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if err == nil {
		y.well++
	} else {
		y.ill++
	}
}

func (y *probeTally) ended(took time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.ends = append(y.ends, took)
}

// probed runs a container that is probed ten times a second until it is killed in the middle of it.
func (l *lab) probed(id string, tally *probeTally) error {
	if _, err := l.create(id, nil); err != nil {
		return err
	}
	if _, err := l.start(id, ""); err != nil {
		return err
	}
	var probes sync.WaitGroup
	for i := range 5 + rand.IntN(20) {
		probes.Go(func() {
			// Some come too late, and are refused or killed.
			tally.probed(l.oneExec(id, fmt.Sprint("p", i), client.BundleConfig{Args: []string{"/bin/sleep", "0.05"}}, 0))
		})
		time.Sleep(100 * time.Millisecond)
	}
	began := time.Now()
	if _, err := l.Kill(context.Background(), &task.KillRequest{ID: id, Signal: 9}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if a, err := l.Wait(ctx, &task.WaitRequest{ID: id}); err != nil || a.GetExitStatus() != 137 {
		return fmt.Errorf("wait: %v, %w", a, err)
	}
	tally.ended(time.Since(began))
	probes.Wait()
	_, err := l.Delete(ctx, &task.DeleteRequest{ID: id})
	return err
}

package direct

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"

	"holdfast/internal/client"
)

// absences are the ways in which a manager may not take events, and how it comes back.
var absences = []struct {
	name string
	cuts int // how often it hangs up: each time the answer to one event may be lost
	away func(l *lab)
	back func(l *lab) error
}{
	{"gone", 1, func(l *lab) { l.Events.Away(false) }, func(l *lab) error { return l.Events.Back() }},
	{"refusing connections", 1, func(l *lab) { l.Events.Away(true) }, func(l *lab) error { return l.Events.Back() }},
	{"refusing events", 0, func(l *lab) { l.Events.Fault(client.Refused, -1) }, accept},
	{"stalled", 0, func(l *lab) { l.Events.Fault(client.Stalled, -1) }, accept},
	{"dropping", 0, func(l *lab) { l.Events.Fault(client.Dropped, -1) }, accept},
	{"restarting", 3, func(l *lab) {
		for range 3 {
			l.Events.Away(false)
			if err := l.Events.Back(); err != nil {
				l.t.Error(err)
			}
		}
	}, accept},
}

func accept(l *lab) error {
	l.Events.Fault(client.Accepted, 0)
	return nil
}

func TestEventsOutlastTheAbsenceOfTheManager(t *testing.T) {
	for _, a := range absences {
		t.Run(a.name, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper()})
			l.history = withoutRepeats
			l.mustCreate("c1", nil)
			l.event(func(e client.Event) bool { return e.Topic == "/tasks/create" }) // the connection is there
			a.away(l)
			began := time.Now()
			l.mustStart("c1", "")
			for i := range 5 {
				id := fmt.Sprintf("e%d", i)
				l.runExec("c1", id, sh(fmt.Sprintf("exit %d", i)))
				if got := l.wait("c1", id); got != i {
					t.Errorf("%s ended with %d", id, got)
				}
				l.mustDelete("c1", id)
			}
			l.more("c2", sh("exit 9"))
			if got := l.wait("c2", ""); got != 9 {
				t.Errorf("exit status %d", got)
			}
			l.mustDelete("c2", "")
			l.finish("c1")
			took := time.Since(began)
			t.Logf("five execs and two containers in %v while the manager is away", took.Round(time.Millisecond))
			if took > limit/2 {
				t.Errorf("the manager's absence was felt: %v", took)
			}
			if err := a.back(l); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			l.event(client.Deletes("c1", ""))
			t.Logf("all events are there %v after its return", time.Since(began).Round(time.Millisecond))
			l.once(4+15+4, a.cuts)
		})
	}
}

// once checks that every event was taken exactly once, but for those whose answer may have been
// lost; their order is checked at the end.
func (l *lab) once(want, cuts int) {
	l.t.Helper()
	all := l.Events.All()
	events := withoutRepeats(all)
	if again := len(all) - len(events); again > cuts {
		l.t.Errorf("%d events came again, want at most %d", again, cuts)
	}
	seen := map[string]int{}
	for _, e := range events {
		seen[e.Topic+" "+e.Task()+" "+e.Exec()]++
	}
	if len(seen) != want {
		l.t.Errorf("%d different events, want %d: %v", len(seen), want, seen)
	}
	for e, n := range seen {
		if n != 1 {
			l.t.Errorf("%s came %d times", e, n)
		}
	}
}

// withoutRepeats leaves out events that are the one before them again.
func withoutRepeats(all []client.Event) []client.Event {
	var events []client.Event
	for i, e := range all {
		if i > 0 && e.Sent.Equal(all[i-1].Sent) && e.Topic == all[i-1].Topic {
			continue
		}
		events = append(events, e)
	}
	return events
}

// A manager that hangs up after it has taken an event, but without saying so, gets it again: the
// shim cannot know. No other comes twice, and none overtakes it.
func TestEventThatWasTakenWithoutAnAnswerComesAgain(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.Events.Fault(client.Dropped, 1)
	l.run("c1", nil)
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	var topics []string
	for _, e := range l.Events.Arrivals() {
		topics = append(topics, strings.TrimPrefix(e.Topic, "/tasks/"))
	}
	if got := strings.Join(topics, " "); got != "create create start exit delete" {
		t.Errorf("arrived: %s", got)
	}
}

// Shutdown is answered at once although events wait, and they are delivered if the manager comes
// back in time (T53, T63c).
func TestShutdownDoesNotWaitForEventsButTheShimDoes(t *testing.T) {
	for _, returns := range []bool{true, false} {
		t.Run(fmt.Sprintf("returns %v", returns), func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper()})
			l.Events.Away(false)
			l.run("c1", nil)
			l.finish("c1")
			pid := l.pid()
			began := time.Now()
			l.shutDown("c1")
			answered := time.Since(began)
			if answered > tolerant {
				t.Errorf("shutdown was answered after %v", answered)
			}
			if returns {
				if err := l.Events.Back(); err != nil {
					t.Fatal(err)
				}
				l.event(client.Deletes("c1", ""))
				l.once(4, 0)
			}
			l.gone()
			l.dead(pid)
			took := time.Since(began)
			t.Logf("answered after %v, ended after %v", answered.Round(time.Microsecond), took.Round(time.Millisecond))
			if took > 10*time.Second {
				t.Errorf("the shim ended after %v", took)
			}
			l.killed = true
			l.cleanUp("c1")
			if !returns {
				if err := l.Log.Output().WaitFor(within(t), "event lost"); err != nil {
					t.Error(err)
				}
			}
			l.Close()
		})
	}
}

// shutDown asks the shim to end. Its answer may be lost if it does so quickly, which managers take
// for success (contract 1.7).
func (l *lab) shutDown(id string) {
	l.t.Helper()
	_, err := l.Shutdown(within(l.t), &task.ShutdownRequest{ID: id})
	if err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		l.t.Errorf("shutdown: %v", err)
	}
}

// dead waits for the end of a shim that has hung up.
func (l *lab) dead(pid int) {
	l.t.Helper()
	l.eventually("the shim has ended", func() bool { return !isShim(pid) })
}

// Without an address for events, as CRI-O starts shims, there are none, and all else works.
func TestWithoutAnAddressForEvents(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("exit 8"), bare: true})
	if got := l.address("c1"); got != l.Result.Address {
		t.Errorf("the file address holds %q, start answered %q", got, l.Result.Address)
	}
	l.run("c1", nil)
	if got := l.wait("c1", ""); got != 8 {
		t.Errorf("exit status %d", got)
	}
	l.mustDelete("c1", "")
	began := time.Now()
	l.shutDown("c1")
	l.gone()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("without events to flush the shim ended after %v", took)
	}
}

// address returns what the shim has written for managers that restart.
func (l *lab) address(id string) string { return l.read(filepath.Join(l.dir, id, "address")) }

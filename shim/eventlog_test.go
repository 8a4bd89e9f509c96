package shim

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/client"
	"holdfast/internal/facts"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newTestLog(t *testing.T, address string) *EventLog {
	return newEventLog(address, "test", slog.New(slog.NewTextHandler(t.Output(), nil)), time.Millisecond)
}

// closeLog closes l and returns how many events were lost.
func closeLog(t *testing.T, l *EventLog, limit time.Duration) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return l.Close(ctx)
}

func order(list []client.Event) string {
	var ids []string
	for _, e := range list {
		ids = append(ids, e.Task())
	}
	return strings.Join(ids, " ")
}

func waitFor(t *testing.T, server *client.Events, task string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := server.Wait(ctx, func(e client.Event) bool { return e.Task() == task }); err != nil {
		t.Fatal(err)
	}
}

// numbered appends events whose ids are numbers from first on, and returns them as order would.
func numbered(l *EventLog, first, n int) string {
	var ids []string
	for i := range n {
		id := fmt.Sprint(first + i)
		l.Append(&api.TaskStart{ContainerID: id, Pid: 7})
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

func TestEventsArriveOnceAndInOrderWhateverTheManagerDoes(t *testing.T) {
	path := filepath.Join(shortDir(t), "e.sock")
	for name, trouble := range map[string]func(*client.Events) func(){
		"none": func(*client.Events) func() { return func() {} },
		"refuses for a while": func(s *client.Events) func() {
			s.Fault(client.Refused, 3)
			return func() {}
		},
		"away, socket gone": func(s *client.Events) func() {
			s.Away(false)
			return func() { _ = s.Back() }
		},
		"away, socket refuses": func(s *client.Events) func() {
			s.Away(true)
			return func() { _ = s.Back() }
		},
		"never answers": func(s *client.Events) func() {
			s.Fault(client.Stalled, 1)
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := client.ListenEvents(path)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			l := newTestLog(t, server.Address())
			numbered(l, 0, 1)
			waitFor(t, server, "0")
			// Until the answer is here a hang-up would make the log send it again.
			for l.Backlog() > 0 {
				time.Sleep(time.Millisecond)
			}
			mend := trouble(server)
			want := "0 " + numbered(l, 1, 50)
			mend()
			waitFor(t, server, "50")
			if lost := closeLog(t, l, 10*time.Second); lost != 0 {
				t.Errorf("%d events lost", lost)
			}
			if got := order(server.All()); got != want {
				t.Errorf("events %s\nwant %s", got, want)
			}
		})
	}
}

// TestWhatWaitedIsHeldBackForSubscribers: dockerd missed the exit of a container when it arrived a
// few milliseconds before dockerd had subscribed again.
func TestWhatWaitedIsHeldBackForSubscribers(t *testing.T) {
	for name, idle := range map[string]bool{"event while it is away": false, "event after its return": true} {
		t.Run(name, func(t *testing.T) {
			const hold = 300 * time.Millisecond
			server, err := client.ListenEvents(filepath.Join(shortDir(t), "e.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			l := newEventLog(server.Address(), "test", slog.New(slog.NewTextHandler(t.Output(), nil)), hold)
			numbered(l, 0, 1)
			waitFor(t, server, "0")
			server.Away(false)
			if !idle {
				numbered(l, 1, 1)
			}
			back := time.Now()
			if err := server.Back(); err != nil {
				t.Fatal(err)
			}
			if idle {
				numbered(l, 1, 1)
			}
			waitFor(t, server, "1")
			if took := time.Since(back); took < hold {
				t.Errorf("sent %v after the manager's return, want %v at least", took, hold)
			}
			if lost := closeLog(t, l, 5*time.Second); lost != 0 {
				t.Errorf("%d events lost", lost)
			}
		})
	}
}

func TestAppendNeverBlocksAndCloseReportsWhatIsLost(t *testing.T) {
	l := newTestLog(t, "/no/such/socket")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { numbered(l, i*100, 100) })
	}
	wg.Wait()
	if got := l.Backlog(); got != 2000 {
		t.Errorf("backlog %d, want 2000", got)
	}
	if lost := closeLog(t, l, 50*time.Millisecond); lost != 2000 {
		t.Errorf("lost %d, want 2000", lost)
	}
	<-l.done
}

func TestCloseSendsWhatWaits(t *testing.T) {
	server, err := client.ListenEvents(filepath.Join(shortDir(t), "e.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l := newTestLog(t, "unix://"+server.Address())
	want := numbered(l, 0, 200)
	if lost := closeLog(t, l, 10*time.Second); lost != 0 {
		t.Errorf("%d events lost", lost)
	}
	if got := order(server.All()); got != want {
		t.Errorf("events %s\nwant %s", got, want)
	}
}

func TestWithoutAnAddressEventsAreDropped(t *testing.T) {
	l := newTestLog(t, "")
	numbered(l, 0, 10)
	if lost := closeLog(t, l, time.Second); lost != 0 || l.Backlog() != 0 {
		t.Errorf("lost %d, backlog %d", lost, l.Backlog())
	}
}

func TestEveryEventHasItsTopic(t *testing.T) {
	for event, topic := range topics {
		if !strings.HasPrefix(event, "containerd.events.Task") || !strings.HasPrefix(topic, "/tasks/") {
			t.Errorf("%s: %s", event, topic)
		}
	}
	if len(topics) != 10 {
		t.Errorf("%d topics", len(topics))
	}
}

// A manager that had just come back lost the last events, since the sender slept through Close.
func TestCloseTriesAtOnceHoweverLongTheManagerWasAway(t *testing.T) {
	path := filepath.Join(shortDir(t), "e.sock")
	server, err := client.ListenEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	server.Fault(client.Refused, -1)
	l := newTestLog(t, path)
	numbered(l, 1, 1)
	eventually(t, "the sender has come to long pauses", func() bool { return len(server.Arrivals()) >= 5 })
	server.Fault(client.Accepted, 0)
	// The pause that has begun lasts 1.6 s.
	if lost := closeLog(t, l, time.Second); lost != 0 {
		t.Errorf("%d events lost", lost)
	}
}

// A manager that returned and went away again, while what waited was held back and Close had begun, cost
// the last events: the sender slept as long as before.
func TestCloseGoesOnTryingWhenTheManagerReturnsAndLeaves(t *testing.T) {
	server, err := client.ListenEvents(filepath.Join(shortDir(t), "e.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	server.Fault(client.Refused, -1)
	l := newEventLog(server.Address(), "test", slog.New(slog.NewTextHandler(t.Output(), nil)), time.Hour)
	numbered(l, 1, 1)
	eventually(t, "the sender has come to long pauses", func() bool { return len(server.Arrivals()) >= 6 })
	server.Away(false)
	if err := server.Back(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sender holds back", func() bool {
		stack := senderStack(t)
		return strings.Contains(stack, "EventLog).attempt(") && strings.Contains(stack, "EventLog).pause(")
	})
	before := len(server.Arrivals())
	lost := make(chan int)
	go func() { lost <- closeLog(t, l, 3*time.Second) }()
	eventually(t, "it is refused again", func() bool { return len(server.Arrivals()) > before })
	server.Fault(client.Accepted, 0)
	if n := <-lost; n != 0 {
		t.Errorf("%d events lost", n)
	}
}

// TestTheLastEventsAreKeptForWhoLooks checks that the last that the manager has taken are told, with
// those that wait behind them, in order and each once.
func TestTheLastEventsAreKeptForWhoLooks(t *testing.T) {
	server, err := client.ListenEvents(filepath.Join(shortDir(t), "e.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l := newTestLog(t, server.Address())
	began := time.Now()
	for _, n := range []int{3, maxTaken - 3, maxTaken / 2} {
		first := server.Count()
		numbered(l, first, n)
		waitFor(t, server, fmt.Sprint(first+n-1))
		for l.Backlog() > 0 {
			time.Sleep(time.Millisecond)
		}
		old := l.taken[0].Envelope
		l.gather()
		if moved := l.taken[0].Envelope; moved == old || &moved.Event.Value[0] == &old.Event.Value[0] {
			t.Error("an event that is kept has not been moved")
		}
		kept := min(first+n, maxTaken)
		events, _ := l.events()
		if len(events) != kept {
			t.Fatalf("%d events are kept of %d", len(events), first+n)
		}
		for i, e := range events {
			if got, want := client.EventOf(e).Task(), fmt.Sprint(first+n-kept+i); got != want || e.Topic != "/tasks/start" {
				t.Errorf("event %d is %s of %s, want that of %s", i, e.Topic, got, want)
			}
			if e.At.Before(began.Add(-time.Second)) || e.Taken.Before(e.At) || e.Taken.After(time.Now()) || e.Refused {
				t.Errorf("%+v", e)
			}
		}
	}
	server.Away(true)
	numbered(l, 1000, 2)
	events, _ := l.events()
	if waiting := (facts.Facts{Events: events}).Waiting(); len(events) != maxTaken+2 || len(waiting) != 2 || client.EventOf(waiting[0]).Task() != "1000" {
		t.Errorf("%d events, of which %+v wait", len(events), waiting)
	}
	if err := server.Back(); err != nil {
		t.Fatal(err)
	}
	if lost := closeLog(t, l, 10*time.Second); lost != 0 {
		t.Errorf("%d events lost", lost)
	}
}

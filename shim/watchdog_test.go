package shim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"

	"holdfast/internal/api"
	"holdfast/internal/recorder"
)

// textLog returns a logger and what it has said so far.
func textLog() (*slog.Logger, *words) {
	said := &words{}
	return slog.New(slog.NewTextHandler(said, nil)), said
}

// words may be written and read at the same time.
type words struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// Events that nobody takes are reported once, however long that lasts, and at the end with their content.
func TestQueueThatIsStuckIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := textLog()
		l := newEventLog("/no/such/socket", "test", log, time.Millisecond)
		numbered(l, 0, 3)
		count := func(what string) int {
			synctest.Wait() // the sender pauses
			return strings.Count(said.String(), what)
		}
		const report = "events wait for the manager"
		time.Sleep(longOutage - time.Second)
		if n := count(report); n != 0 {
			t.Errorf("reported %d times after %v", n, longOutage-time.Second)
		}
		time.Sleep(longestPause + 2*time.Second)
		if n := count(report + `" events=3`); n != 1 {
			t.Errorf("reported %d times: %s", n, said)
		}
		time.Sleep(10 * longOutage)
		if n := count(report); n != 1 {
			t.Errorf("reported %d times after long: %s", n, said)
		}
		var content []string
		for _, e := range l.queue {
			content = append(content, fmt.Sprintf("event=%x", e.GetEvent().GetValue()))
		}
		began := time.Now()
		if lost := closeLog(t, l, flushLimit); lost != 3 || time.Since(began) > flushLimit {
			t.Errorf("%d events were lost within %v", lost, time.Since(began))
		}
		<-l.done
		at := 0
		for _, what := range content {
			next := strings.Index(said.String()[at:], what)
			if next < 0 {
				t.Fatalf("%s is not reported as lost, or out of order: %s", what, said)
			}
			at += next
		}
	})
}

// A request that takes too long is reported once, with what was done last. Wait may take for ever.
func TestRequestThatTakesLongIsReportedOnce(t *testing.T) {
	for method, want := range map[string]int{"Create": 1, "Wait": 0} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, said := textLog()
				steps := new(recorder.Recorder)
				steps.Reach(recorder.CreateBegun, "c1", "")
				during := ""
				_, err := edge(log, steps, newTidierWith(func() {}, func() {}, func() bool { return true }), newRequests())(t.Context(), nil, &ttrpc.UnaryServerInfo{FullMethod: "/containerd.task.v3.Task/" + method},
					func(context.Context, func(any) error) (any, error) {
						time.Sleep(10 * slowCall)
						synctest.Wait() // for what watches it
						during = said.String()
						return &api.StateResponse{}, nil
					})
				if err != nil {
					t.Error(err)
				}
				report := fmt.Sprintf(`msg="request takes long" op=%s`, method)
				if strings.Count(during, report) != want || strings.Count(said.String(), report) != want {
					t.Errorf("not reported %d times: %s", want, said)
				}
				if want > 0 && !strings.Contains(during, "c1") {
					t.Errorf("without the last steps: %s", during)
				}
			})
		})
	}
}

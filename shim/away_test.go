package shim

import (
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"holdfast/internal/client"
)

// senderStack returns what the sender of the only log does, as the Go runtime prints it.
func senderStack(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 1<<20)
	for _, goroutine := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(goroutine, "EventLog).send(") {
			return goroutine
		}
	}
	t.Fatal("no sender")
	return ""
}

func rests(stack string) bool {
	return strings.Contains(stack, " [select") && strings.Contains(stack, "EventLog).idle(")
}

// A manager that went away while nothing waited for it left the sender going round without a pause,
// and with it a whole CPU.
func TestSenderRestsWhileTheManagerIsAway(t *testing.T) {
	server, err := client.ListenEvents(filepath.Join(shortDir(t), "e.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l := newEventLog(server.Address(), "test", slog.New(slog.NewTextHandler(t.Output(), nil)), time.Hour)
	numbered(l, 0, 1)
	waitFor(t, server, "0")
	eventually(t, "the event is acknowledged", func() bool { return l.Backlog() == 0 })
	server.Away(false)
	resting := 0
	eventually(t, "the sender rests", func() bool {
		if resting++; !rests(senderStack(t)) {
			resting = 0
		}
		return resting == 50
	})

	// It looks for the manager again when somebody comes who may be it.
	if err := server.Back(); err != nil {
		t.Fatal(err)
	}
	l.Visited()
	eventually(t, "the sender has seen the return and holds back", func() bool {
		stack := senderStack(t)
		return strings.Contains(stack, "EventLog).attempt(") && strings.Contains(stack, "EventLog).pause(")
	})
	if lost := closeLog(t, l, 5*time.Second); lost != 0 {
		t.Errorf("%d events lost", lost)
	}
}

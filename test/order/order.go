package order

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"holdfast/internal/client"
)

// Violation is one rule broken by one event.
type Violation struct {
	Rule   Rule
	Index  int    // of the event in the history; its length if the end of the history is at fault
	Detail string // what was seen
}

// Error names the event by its place in the history, counted from 1 as History does.
func (v *Violation) Error() string {
	return fmt.Sprintf("event %d: %s: %s", v.Index+1, v.Rule, v.Detail)
}

// Check returns nil if events, in the order of their arrival, obey the rules; else every
// *Violation, joined.
func Check(events []client.Event, opts ...Option) error {
	w := &walk{
		tasks:          map[string]*task{},
		beginsInMiddle: slices.Contains(opts, BeginsInMiddle),
		execsDeleted:   slices.Contains(opts, ExecsDeleted),
		compacted:      slices.Contains(opts, Compacted),
	}
	for i, ev := range events {
		w.index, w.current = i, ev
		w.event(ev)
	}
	w.index = len(events)
	if !slices.Contains(opts, EndsInMiddle) {
		w.end()
	}
	return errors.Join(w.violations...)
}

// Verify reports every violation of the rules as an error of t, together with the history.
func Verify(t testing.TB, events []client.Event, opts ...Option) {
	t.Helper()
	if err := Check(events, opts...); err != nil {
		t.Errorf("the events are out of order:\n%v\nHistory:\n%s", err, History(events))
	}
}

// History returns events as text, one per line, counted from 1.
func History(events []client.Event) string {
	var b strings.Builder
	for i, ev := range events {
		fmt.Fprintf(&b, "%4d %s %s\n", i+1, ev.Sent.Format("15:04:05.000000"), describe(ev))
	}
	return b.String()
}

func describe(ev client.Event) string {
	fields := []string{ev.Topic, ev.Task()}
	if exec := ev.Exec(); exec != "" {
		fields = append(fields, exec)
	}
	if pid := ev.Pid(); pid != 0 {
		fields = append(fields, fmt.Sprintf("pid %d", pid))
	}
	if status, at, ok := ev.Exit(); ok {
		fields = append(fields, fmt.Sprintf("status %d at %s", status, at.Format("15:04:05.000000")))
	}
	return strings.Join(fields, " ")
}

// Events wraps messages as if a shim had sent them one after the other, for tests of parts that
// have no events server.
func Events(messages ...proto.Message) []client.Event {
	now := time.Now()
	events := make([]client.Event, len(messages))
	for i, m := range messages {
		events[i] = client.Event{
			At: now, Sent: now, Namespace: client.DefaultNamespace, Topic: client.Topic(m), Message: m,
		}
	}
	return events
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"holdfast/internal/client"
	"holdfast/internal/facts"
)

// followPause lies between two looks at the events of an older shim, which does not tell when there are new ones.
const followPause = 50 * time.Millisecond

func eventFlags(f *flag.FlagSet, t *target) {
	f.BoolVarP(&t.follow, "follow", "f", false, "go on with those that come, until Ctrl-C or the end of the shim")
	f.BoolVar(&t.json, "json", false, "print JSON, one object for each event and line")
}

// listEvents prints the events of a shim, or of one of its containers.
func listEvents(ctx context.Context, t *target) (int, error) {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	f, err := t.facts(ctx)
	if err != nil {
		return 0, err
	}
	var printed fates
	for first := true; err == nil; first = false {
		var all []facts.Event
		all, printed = printed.fresh(f.Events, t.id)
		if err := writeEvents(stdout, all, t.json, first); err != nil {
			return 0, err
		}
		if !t.follow || f.Last {
			return 0, nil
		}
		f, err = t.next(ctx, f.Revision)
	}
	if ctx.Err() != nil || errors.Is(err, ttrpc.ErrClosed) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return 0, nil // Ctrl-C, or the end of a shim that was killed
	}
	return 0, err
}

// next returns the events when something has happened to them.
func (t *target) next(ctx context.Context, revision uint64) (facts.Facts, error) {
	f, err := t.Follow(ctx, revision)
	if errors.Is(err, errdefs.ErrNotImplemented) && sleep(ctx, followPause) {
		return t.Facts(ctx)
	}
	return f, err
}

// fates are what has become of the events that were told last.
type fates map[string]string

// fresh returns the events of a container, or of all if id is empty, of which something else has become since,
// and the fates of these events.
func (known fates) fresh(events []facts.Event, id string) (all []facts.Event, now fates) {
	now = fates{}
	for _, e := range events {
		key := fmt.Sprint(e.At.UnixNano(), e.Topic, e.Value)
		now[key] = fate(e)
		if known[key] != now[key] && (id == "" || client.EventOf(e).Task() == id) {
			all = append(all, e)
		}
	}
	return all, now
}

// writeEvents prints events as a table, with a heading or without, or as JSON.
func writeEvents(w io.Writer, events []facts.Event, asJSON, heading bool) error {
	if asJSON {
		return writeJSONEvents(w, events)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if heading {
		fmt.Fprintf(table, "%-*s\tMANAGER\tEVENT\tCONTAINER\tEXEC\tPID\tSTATUS\n", len(clock), "LOGGED")
	}
	for _, e := range events {
		event := client.EventOf(e)
		manager := fate(e)
		if !e.Taken.IsZero() {
			manager += " after " + e.Taken.Sub(e.At).Round(10*time.Microsecond).String()
		}
		pid, status := "-", "-"
		if n := event.Pid(); n != 0 {
			pid = fmt.Sprint(n)
		}
		if n, _, ok := event.Exit(); ok {
			status = fmt.Sprint(n)
		}
		fmt.Fprintf(table, "%s\t%-19s\t%-19s\t%s\t%s\t%s\t%s\n", e.At.Local().Format(clock), manager, e.Topic,
			event.Task(), cmp.Or(event.Exec(), "-"), pid, status)
	}
	return table.Flush()
}

// printedEvent is an event as JSON has it.
type printedEvent struct {
	Topic   string          `json:"topic"`
	At      time.Time       `json:"at"`
	Taken   time.Time       `json:"taken,omitzero"`
	Refused bool            `json:"refused,omitempty"`
	Event   json.RawMessage `json:"event"`
}

func writeJSONEvents(w io.Writer, events []facts.Event) error {
	encoder := json.NewEncoder(w)
	for _, e := range events {
		message, err := protojson.Marshal(client.EventOf(e).Message)
		if err != nil {
			return fmt.Errorf("cannot print an event: because %w", err)
		}
		if err := encoder.Encode(printedEvent{e.Topic, e.At, e.Taken, e.Refused, message}); err != nil {
			return err
		}
	}
	return nil
}

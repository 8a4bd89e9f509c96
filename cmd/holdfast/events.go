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

	"github.com/containerd/ttrpc"
	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"holdfast/internal/client"
	"holdfast/internal/facts"
)

// followPause lies between two looks at the events of a shim.
const followPause = 50 * time.Millisecond

func eventFlags(f *flag.FlagSet, t *target) {
	f.BoolVarP(&t.follow, "follow", "f", false, "go on with those that come, until Ctrl-C or the end of the shim")
	f.BoolVar(&t.json, "json", false, "print JSON, one object for each event and line")
}

// listEvents prints the events of a shim, or of one of its containers.
func listEvents(ctx context.Context, t *target) (int, error) {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	seen := map[string]bool{} // what has been printed
	for first := true; ; first = false {
		f, err := t.facts(ctx)
		if !first && (ctx.Err() != nil || errors.Is(err, ttrpc.ErrClosed)) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if err := writeEvents(stdout, fresh(f.Events, t.id, seen), t.json, first); err != nil {
			return 0, err
		}
		if !t.follow || !sleep(ctx, followPause) {
			return 0, nil
		}
	}
}

// fresh returns the events of a container, or of all if id is empty, that have not been seen, and notes
// that they have.
func fresh(events []facts.Event, id string, seen map[string]bool) []facts.Event {
	var all []facts.Event
	for _, e := range events {
		key := fmt.Sprint(e.At.UnixNano(), e.Topic, e.Value)
		if seen[key] || id != "" && client.EventOf(e).Task() != id {
			continue
		}
		seen[key] = true
		all = append(all, e)
	}
	return all
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

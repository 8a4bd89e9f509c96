package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"holdfast/internal/client"
	"holdfast/internal/facts"
)

// clock is how a moment of today is printed.
const clock = "15:04:05.000000"

// deed is a row of a timeline: a step that was reached, or something that took a while.
type deed struct {
	At   time.Time     `json:"at"` // of its beginning
	Took time.Duration `json:"took_ns,omitempty"`
	What string        `json:"what"`
	Exec string        `json:"exec,omitempty"`
	step facts.Step    // zero, unless it is one
}

func timeline(ctx context.Context, t *target) (int, error) {
	f, err := t.facts(ctx)
	if err != nil {
		return 0, err
	}
	deeds := deedsOf(f, t.id)
	if t.trace {
		return 0, writeTrace(stdout, f.Pid, deeds)
	}
	if t.json {
		return 0, writeJSON(stdout, deeds)
	}
	return 0, writeTimeline(stdout, deeds)
}

// deedsOf returns what a shim has done for a container, in the order in which it began, and what became
// of the container's events.
func deedsOf(f facts.Facts, id string) []deed {
	all := []deed{}
	for _, s := range f.Steps {
		switch {
		case s.ID != id:
		case s.N > 0:
			all = append(all, deed{At: s.At, What: s.String(), Exec: s.Exec, step: s})
		default:
			failed := ""
			if s.Failed {
				failed = " (failed)"
			}
			all = append(all, deed{At: s.At, Took: s.Took, What: s.Op + " " + s.What + failed, Exec: s.Exec})
		}
	}
	for _, e := range f.Events {
		event := client.EventOf(e)
		if event.Task() != id {
			continue
		}
		d := deed{At: e.At, What: "event " + e.Topic + " " + fate(e), Exec: event.Exec()}
		if !e.Taken.IsZero() {
			d.Took = e.Taken.Sub(e.At)
		}
		all = append(all, d)
	}
	slices.SortStableFunc(all, func(a, b deed) int { return a.At.Compare(b.At) })
	return all
}

// fate tells what the manager did with an event.
func fate(e facts.Event) string {
	switch {
	case e.Taken.IsZero():
		return "waits"
	case e.Refused:
		return "refused"
	}
	return "taken"
}

// writeTimeline prints each deed, with the time since the one before it of the same process.
func writeTimeline(w io.Writer, deeds []deed) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TIME\tAFTER\tTOOK\tDONE\tEXEC")
	last := map[string]time.Time{}
	for _, d := range deeds {
		after, took := "", ""
		if !last[d.Exec].IsZero() {
			after = d.At.Sub(last[d.Exec]).Round(time.Microsecond).String()
		}
		last[d.Exec] = d.At
		if d.Took > 0 {
			took = d.Took.Round(time.Microsecond).String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", d.At.Local().Format(clock), after, took, d.What, cmp.Or(d.Exec, "-"))
	}
	return table.Flush()
}

// A traceEvent is one of the JSON format that Chrome's tracing and Perfetto read.
type traceEvent struct {
	Name  string            `json:"name"`
	Phase string            `json:"ph"`
	Time  int64             `json:"ts"`            // microseconds
	Took  int64             `json:"dur,omitempty"` // microseconds
	Pid   int               `json:"pid"`
	Tid   int               `json:"tid"`
	Args  map[string]string `json:"args,omitempty"`
}

// writeTrace has two rows for the first process and two for each exec: the steps, each of which takes
// from the one before it of the same operation, and what ran or was waited for.
func writeTrace(w io.Writer, pid int, deeds []deed) error {
	rows := map[string]int{}
	last := map[string]facts.Step{}
	events := []traceEvent{}
	for _, d := range deeds {
		row, ok := rows[d.Exec]
		if !ok {
			row = 2 * len(rows)
			rows[d.Exec] = row
			events = append(events, rowName(pid, row, d.Exec, "steps"), rowName(pid, row+1, d.Exec, "commands, waits, events"))
		}
		e := traceEvent{Name: d.What, Phase: "X", Time: d.At.UnixMicro(), Took: d.Took.Microseconds(), Pid: pid, Tid: row + 1}
		if d.step.N > 0 {
			e.Tid = row
			if before, ok := last[d.Exec]; ok && before.Op == d.step.Op && before.N < d.step.N {
				e.Time = before.At.UnixMicro()
				e.Took = d.At.Sub(before.At).Microseconds()
			}
			last[d.Exec] = d.step
		}
		events = append(events, e)
	}
	return json.NewEncoder(w).Encode(map[string]any{"traceEvents": events})
}

// rowName is the event that gives a row its name.
func rowName(pid, row int, exec, what string) traceEvent {
	return traceEvent{
		Name: "thread_name", Phase: "M", Pid: pid, Tid: row,
		Args: map[string]string{"name": cmp.Or(exec, "init") + ": " + what},
	}
}

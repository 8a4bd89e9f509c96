package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"holdfast/internal/client"
)

// report prints what became of a container.
func report(w io.Writer, status uint32, events []client.Event) {
	fmt.Fprintf(w, "\nexit status %d\n\n", status)
	list(w, events)
}

// list prints events as a table, with the time that passed from one to the next as the shim
// measured it.
func list(w io.Writer, events []client.Event) {
	exec := "" // a heading only if there is something below it
	for _, ev := range events {
		if ev.Exec() != "" {
			exec = "exec"
		}
	}
	line(w, "+ms", "event", "pid", "status", exec)
	var last time.Time
	for _, ev := range events {
		if last.IsZero() {
			last = ev.Sent
		}
		ms := fmt.Sprintf("%.1f", float64(ev.Sent.Sub(last))/float64(time.Millisecond))
		pid, status := "", ""
		if n := ev.Pid(); n != 0 {
			pid = fmt.Sprint(n)
		}
		if n, _, ok := ev.Exit(); ok {
			status = fmt.Sprint(n)
		}
		line(w, ms, ev.Topic, pid, status, ev.Exec())
		last = ev.Sent
	}
}

// line prints one line of the table. The columns are as wide as they usually are.
func line(w io.Writer, ms, event, pid, status, exec string) {
	text := fmt.Sprintf("%9s  %-20s %8s  %6s  %s", ms, event, pid, status, exec)
	fmt.Fprintln(w, strings.TrimRight(text, " "))
}

// showLog prints the log of a shim: all of it if something went wrong, else warnings and errors.
func showLog(w io.Writer, log string, all bool) {
	for l := range strings.Lines(log) {
		if all || strings.Contains(l, "level=warn") || strings.Contains(l, "level=error") {
			fmt.Fprint(w, "shim: ", l)
		}
	}
}

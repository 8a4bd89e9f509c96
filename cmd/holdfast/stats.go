package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

const (
	// statsPause lies between the two looks that a single table takes: what a processor has done is
	// a difference.
	statsPause = 250 * time.Millisecond
	// statsInterval lies between two tables.
	statsInterval = time.Second
)

// clearScreen puts the cursor at the top and clears what is below: nothing of the terminal's
// settings is changed, so that there is nothing to put back.
const clearScreen = "\x1b[H\x1b[2J"

// statsOptions are those of holdfast stats.
type statsOptions struct {
	surveyOptions
	json, watch bool
	terminal    bool // out is one
	interval    time.Duration
}

// statsRow is what one container used between two looks.
type statsRow struct {
	Namespace  string  `json:"namespace"`
	Container  string  `json:"container"`
	State      string  `json:"state"`
	CPUPercent float64 `json:"cpu_percent"` // of one processor
	*usage
}

// look is what was seen of all containers at one time.
type look struct {
	at   time.Time
	rows []statsRow
}

// nodeStats prints what each container uses, once, or again and again until ctx ends, which is then
// no error.
func nodeStats(ctx context.Context, out io.Writer, o statsOptions) error {
	o.usage = true
	pause := statsPause
	last, err := takeLook(ctx, o)
	for err == nil {
		if !sleep(ctx, pause) {
			break
		}
		var now look
		if now, err = takeLook(ctx, o); err != nil {
			break
		}
		now.compare(last)
		if err := now.print(out, o); err != nil {
			return err
		}
		if !o.watch {
			return nil
		}
		last, pause = now, o.interval
	}
	if o.watch && ctx.Err() != nil {
		return nil
	}
	return errors.Join(err, ctx.Err())
}

// sleep tells whether the time has passed; false means that ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func takeLook(ctx context.Context, o statsOptions) (look, error) {
	shims, _, err := survey(ctx, o.surveyOptions)
	l := look{at: time.Now()}
	for i := range shims {
		s := &shims[i]
		if s.problem != nil && len(s.tasks) == 0 {
			l.rows = append(l.rows, statsRow{Namespace: s.Namespace, Container: s.ID, State: "no answer"})
		}
		for _, t := range s.tasks {
			if t.state != "gone" {
				l.rows = append(l.rows, statsRow{Namespace: s.Namespace, Container: t.id, State: t.state, usage: t.usage})
			}
		}
	}
	return l, err
}

// compare computes what the processors have done since the last look. A container that has been made
// anew under the same name has used less than before.
func (l *look) compare(last look) {
	before := map[[2]string]*usage{}
	for _, r := range last.rows {
		before[[2]string{r.Namespace, r.Container}] = r.usage
	}
	for i := range l.rows {
		r := &l.rows[i]
		old, passed := before[[2]string{r.Namespace, r.Container}], l.at.Sub(last.at)
		if r.usage != nil && old != nil && passed > 0 && r.CPU >= old.CPU {
			r.CPUPercent = 100 * float64(r.CPU-old.CPU) / float64(passed)
		}
	}
}

// print writes a table, or as JSON one object for each container and line, in one piece.
func (l *look) print(out io.Writer, o statsOptions) error {
	var text bytes.Buffer
	if o.json {
		encoder := json.NewEncoder(&text)
		for _, r := range l.rows {
			if err := encoder.Encode(r); err != nil {
				return err
			}
		}
	} else {
		if o.watch && o.terminal {
			text.WriteString(clearScreen)
		}
		if err := l.table(&text); err != nil {
			return err
		}
		if o.watch && !o.terminal {
			text.WriteString("\n")
		}
	}
	_, err := out.Write(text.Bytes())
	return err
}

func (l *look) table(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tCONTAINER\tSTATE\tCPU %\tMEM USAGE / LIMIT\tMEM %\tBLOCK I/O\tPIDS")
	for _, r := range l.rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t", r.Namespace, r.Container, r.State)
		if r.usage == nil {
			fmt.Fprintln(table, "-\t- / -\t-\t- / -\t-")
			continue
		}
		limit, share := "-", "-"
		if r.MemoryLimit > 0 {
			limit, share = bytesText(r.MemoryLimit), fmt.Sprintf("%.2f%%", 100*float64(r.Memory)/float64(r.MemoryLimit))
		}
		fmt.Fprintf(table, "%.2f%%\t%s / %s\t%s\t%s / %s\t%d\n", r.CPUPercent, bytesText(r.Memory), limit, share,
			bytesText(r.Read), bytesText(r.Written), r.Processes)
	}
	return table.Flush()
}

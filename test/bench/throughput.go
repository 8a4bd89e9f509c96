package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
)

// rounds is how often each mode is measured, with one more before that is not counted.
const rounds = 9

// modes are the ways of output that are measured. A round takes some tenths of a second.
var modes = [...]mode{
	{name: "FIFO, first process", sink: toFIFO, bytes: 512 << 20},
	{name: "FIFO, exec", sink: toFIFO, bytes: 512 << 20, exec: true},
	{name: "terminal", sink: toTerminal, bytes: 32 << 20},
	{name: "file://", sink: toFile, bytes: 256 << 20},
	{name: "binary://", sink: toLogger, bytes: 512 << 20},
}

// The sides of a comparison. bare is without shim and container: the same writer and reader, and
// between them what our shim puts there, a FIFO of the same size for example.
const (
	ours = iota
	theirs
	bare
	sides
)

// flow is what was measured of a mode, round by round.
type flow struct {
	mode
	direct bool // our process has the client's FIFO itself
	sizes  [sides]int
	rate   [sides][]float64 // MB/s
	cpu    [sides][]float64 // seconds of the shim's CPU time per GiB
}

// measureFlow measures a mode. In each round every side has its turn, and the first is another one.
func (b *bench) measureFlow(ctx context.Context, m mode, name string) (f flow, err error) {
	f.mode = m
	var all [sides]*source
	defer func() {
		for _, s := range all {
			if s != nil {
				err = errors.Join(err, s.close(ctx))
			}
		}
	}()
	for side := range all {
		dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, side))
		if side == bare {
			all[side], err = bareSource(dir, b.self, m, f.sizes[ours])
		} else {
			all[side], err = shimSource(ctx, dir, b.self, b.shims[side], m)
		}
		if err != nil {
			return f, fmt.Errorf("%s of %s: %w", m.name, sideNames[side], err)
		}
		f.sizes[side] = all[side].size()
	}
	f.direct = all[ours].direct
	return f, f.run(ctx, all)
}

// run runs the rounds. The first one is not counted: programs start in it.
func (f *flow) run(ctx context.Context, all [sides]*source) error {
	buf := make([]byte, block)
	for round := range 1 + rounds {
		for i := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			side := (round + i) % sides
			r, err := all[side].round(f.bytes, buf)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", f.name, sideNames[side], err)
			}
			if round == 0 {
				continue
			}
			f.rate[side] = append(f.rate[side], float64(f.bytes)/1e6/r.took.Seconds())
			f.cpu[side] = append(f.cpu[side], r.cpu.Seconds()*(1<<30)/float64(f.bytes))
		}
	}
	return nil
}

var sideNames = [sides]string{"ours", "theirs", "bare"}

// printFlows prints the two tables of throughput.
func printFlows(w io.Writer, flows []flow) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "MB/s\tours\ttheirs\tbare\tours/theirs\tours/bare\t")
	for _, f := range flows {
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t\n", f.name,
			median(f.rate[ours]), median(f.rate[theirs]), median(f.rate[bare]),
			ratio(f.rate[ours], f.rate[theirs]), ratio(f.rate[ours], f.rate[bare]))
	}
	_ = table.Flush() // like fmt.Fprint to standard output
	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "shim CPU, ms/GiB\tours\ttheirs\tratio\tFIFO, KiB: ours\ttheirs\t")
	for _, f := range flows {
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.4f\t%d\t%d\t\n", f.name,
			1000*median(f.cpu[ours]), 1000*median(f.cpu[theirs]),
			ratio(f.cpu[ours], f.cpu[theirs]), f.sizes[ours]>>10, f.sizes[theirs]>>10)
	}
	_ = table.Flush()
}

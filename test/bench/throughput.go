package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"text/tabwriter"
)

// exactFactor is how many more rounds there are of the exact comparison, whose sides differ least.
const exactFactor = 3

// modes are the ways of output that are measured. A round takes some tenths of a second.
//
// The exact comparison with a bare FIFO has writer and reader on one CPU, where they take turns in
// filling the FIFO and emptying it. On two they now do and now get in each other's way, as chance
// and the other load have it, which makes a factor of two. A shim that copies needs both CPUs.
var modes = [...]mode{
	{name: "FIFO, first process", sink: toFIFO, bytes: 256 << 20},
	{name: "the same, on one CPU", sink: toFIFO, bytes: 256 << 20, exact: true},
	{name: "FIFO, exec", sink: toFIFO, bytes: 256 << 20, exec: true},
	{name: "terminal", sink: toTerminal, bytes: 16 << 20},
	{name: "file://", sink: toFile, bytes: 256 << 20},
	{name: "binary://", sink: toLogger, bytes: 256 << 20},
}

// The modes that there are targets for.
const (
	directMode = 0
	exactMode  = 1
	relayMode  = 2
)

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
	cpu    [sides][]float64 // milliseconds of the shim's CPU time per GiB
}

// measureFlow measures a mode. All sides are there from the first round to the last.
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
		if m.exact && side == theirs {
			continue
		}
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
	if m.exact {
		unpin, err := pinClient(true)
		if err != nil {
			return f, err
		}
		defer unpin()
	}
	return f, f.run(ctx, all, b.rounds)
}

// run runs the rounds, and one before that is not counted: programs start in it.
func (f *flow) run(ctx context.Context, all [sides]*source, rounds int) error {
	n := rounds
	if f.exact {
		n *= exactFactor
	}
	buf := make([]byte, block)
	return turns(ctx, 1+n, func(round, side int) error {
		if all[side] == nil {
			return nil
		}
		r, err := all[side].round(f.bytes, buf)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", f.name, sideNames[side], err)
		}
		if round > 0 {
			f.rate[side] = append(f.rate[side], float64(f.bytes)/1e6/r.took.Seconds())
			f.cpu[side] = append(f.cpu[side], ms(r.cpu)*(1<<30)/float64(f.bytes))
		}
		return nil
	})
}

// turns gives every side its turn in each of n rounds. Who goes first changes.
func turns(ctx context.Context, n int, turn func(round, side int) error) error {
	for round := range n {
		for i := range sides {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := turn(round, (round+i)%sides); err != nil {
				return err
			}
		}
	}
	return nil
}

var sideNames = [sides]string{"ours", "theirs", "bare"}

// printFlows prints the two tables of throughput. What was not measured is "-".
func printFlows(w io.Writer, flows []flow) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "MB/s\tours\ttheirs\tbare\tours/theirs\tours/bare\t")
	for _, f := range flows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t\n", f.name,
			figure(0, median(f.rate[ours])), figure(0, median(f.rate[theirs])), figure(0, median(f.rate[bare])),
			figure(2, ratio(f.rate[ours], f.rate[theirs])), figure(2, ratio(f.rate[ours], f.rate[bare])))
	}
	_ = table.Flush() // like fmt.Fprint to standard output
	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "shim CPU, ms/GiB\tours\ttheirs\tratio\tFIFO, KiB: ours\ttheirs\t")
	for _, f := range flows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t\n", f.name,
			figure(2, median(f.cpu[ours])), figure(2, median(f.cpu[theirs])),
			figure(4, ratio(f.cpu[ours], f.cpu[theirs])), kib(f.sizes[ours]), kib(f.sizes[theirs]))
	}
	_ = table.Flush()
}

// kib is a size in a table, "-" if there is none.
func kib(size int) string {
	if size == 0 {
		return "-"
	}
	return strconv.Itoa(size >> 10)
}

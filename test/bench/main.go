package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// bench is what the parts need to measure, and what they have measured.
type bench struct {
	w       io.Writer
	dir     string
	self    string // path of this binary
	runtime string
	options *anypb.Any
	shims   []contender // ours, theirs, and the peers
	plots   *plots      // nil: no pictures are wanted
	effort
	sheet
}

// part is something that can be measured alone. Its lines are what it puts on the sheet.
type part struct {
	name  string
	run   func(*bench, context.Context) error
	lines []line
}

var parts = [...]part{
	{"size", (*bench).size, sizeLines},
	{"lives", (*bench).lives, lifeLines},
	{"execs", (*bench).execs, execLines},
	{"kills", (*bench).deaths, killLines},
	{"load", (*bench).load, loadLines},
	{"clients", (*bench).clients, nil},
	{"idle", (*bench).idleness, idleLines},
	{"crowd", (*bench).crowded, crowdLines},
	{"stdio", (*bench).stdio, nil},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == programWord {
		if err := program(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(meterVariable) != "" {
		if err := meter(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{w: os.Stdout, effort: fullEffort}
	var c choices
	flag.StringVar(&c.ours, "ours", "", "our shim")
	flag.StringVar(&c.theirs, "theirs", "", "containerd's shim")
	flag.StringVar(&c.peers, "peers", "", "further shims: name=path, separated by commas")
	flag.StringVar(&c.only, "only", "", "what to measure, separated by commas (all): "+partNames())
	flag.StringVar(&c.out, "out", "", "a file for the table and all samples, in JSON")
	flag.StringVar(&c.plots, "plots", "", "a directory for pictures, in SVG, of the parts crowd, clients and stdio")
	flag.StringVar(&b.runtime, "runtime", "runc", "the OCI runtime")
	flag.BoolVar(&c.quick, "quick", false, "less of everything, so that it ends within two minutes")
	flag.IntVar(&c.n, "n", 0, "lives of each side, and of all else in proportion")
	flag.DurationVar(&c.idle, "idle", 0,
		"how long a shim is left alone before its memory is looked at; theirs tidies up after 30s")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := b.compare(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// choices are what the command line says.
type choices struct {
	ours, theirs, peers, only, out, plots string

	quick bool
	n     int
	idle  time.Duration
}

// compare measures the shims and prints the tables of the parts that were chosen.
func (b *bench) compare(ctx context.Context, c choices) (err error) {
	chosen, err := choose(c.only)
	if err != nil {
		return err
	}
	if c.quick {
		b.effort = quickEffort
	}
	b.scale(c.n, c.idle)
	if c.plots != "" {
		b.plots = &plots{dir: c.plots, memory: map[string][]point{}, latency: map[string][]delay{}}
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(inMemory(), "b"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.enter(c.ours, c.theirs, c.peers); err != nil {
		return err
	}
	if err := b.settle(); err != nil {
		return err
	}
	conditions := b.conditions(c.quick)
	for _, name := range slices.Sorted(maps.Keys(conditions)) {
		fmt.Fprintf(b.w, "%s: %s\n", name, conditions[name])
	}
	if err := b.measure(ctx, chosen); err != nil {
		return err
	}
	fmt.Fprintln(b.w)
	b.print(b.w, b.sideNames())
	if b.plots != nil {
		if err := b.plots.write(b); err != nil {
			return err
		}
	}
	if c.out == "" {
		return nil
	}
	return b.write(c.out, conditions, b.sideNames())
}

// measure runs the parts. What they print is what does not fit into the one table.
func (b *bench) measure(ctx context.Context, chosen []part) error {
	limited := ctx
	if b.limit > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, b.limit)
		defer cancel()
	}
	for _, p := range chosen {
		fmt.Fprintf(b.w, "measuring %s\n", p.name)
		b.rule(p.lines, b.counts())
		switch err := p.run(b, limited); {
		case limited.Err() != nil && ctx.Err() == nil:
			fmt.Fprintf(b.w, "%v are over: %s was not finished, what comes after it not begun\n", b.limit, p.name)
			return nil
		case err != nil:
			return fmt.Errorf("measure %s: %w", p.name, err)
		}
	}
	return nil
}

// choose returns the parts that a list names, in our order; all for an empty one.
func choose(only string) ([]part, error) {
	if only == "" {
		return parts[:], nil
	}
	words := strings.Split(only, ",")
	var chosen []part
	for _, p := range parts {
		if i := slices.Index(words, p.name); i >= 0 {
			chosen, words = append(chosen, p), slices.Delete(words, i, i+1)
		}
	}
	if len(words) > 0 {
		return nil, fmt.Errorf("no such part: %s", strings.Join(words, ", "))
	}
	return chosen, nil
}

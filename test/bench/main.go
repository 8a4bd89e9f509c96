package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// bench is what the parts need to measure.
type bench struct {
	w     io.Writer
	dir   string
	self  string    // path of this binary
	shims [2]string // ours, theirs
	n     int       // lives of each
	idle  time.Duration
}

// part is something that can be measured alone.
type part struct {
	name string
	run  func(*bench, context.Context) error
}

var parts = [...]part{
	{"lives", (*bench).lives}, {"idle", (*bench).idleness}, {"stdio", (*bench).stdio},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == programWord {
		if err := program(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{w: os.Stdout}
	flag.StringVar(&b.shims[0], "ours", "", "our shim")
	flag.StringVar(&b.shims[1], "theirs", "", "containerd's shim")
	flag.IntVar(&b.n, "n", 50, "lives of each shim")
	flag.DurationVar(&b.idle, "idle", 35*time.Second,
		"how long a shim is left alone before its memory is looked at; theirs tidies up after 30s")
	only := flag.String("only", "", "what to measure, separated by commas: lives, idle, stdio (all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.compare(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare measures the two shims and prints the tables of the parts in only, or of all.
func (b *bench) compare(ctx context.Context, only string) (err error) {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	for i, shim := range b.shims {
		if b.shims[i], err = filepath.Abs(shim); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	fmt.Fprintf(b.w, "%d CPUs, %s\n", runtime.NumCPU(), runtime.Version())
	for _, p := range chosen {
		fmt.Fprintln(b.w)
		if err := p.run(b, ctx); err != nil {
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

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// warmUp is how many lives of each shim are not counted: the first ones read from disk.
const warmUp = 3

func main() {
	ours := flag.String("ours", "", "our shim")
	theirs := flag.String("theirs", "", "containerd's shim")
	n := flag.Int("n", 50, "lives of each shim")
	idle := flag.Duration("idle", 35*time.Second,
		"how long a shim is left alone before its memory is looked at; theirs tidies up after 30s")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, os.Stdout, [2]string{*ours, *theirs}, *n, *idle); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare measures the two shims and prints the tables.
func compare(ctx context.Context, w io.Writer, shims [2]string, n int, idle time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil {
			err = removeErr
		}
	}()
	for i, shim := range shims {
		if shims[i], err = filepath.Abs(shim); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "%d lives each, %d CPUs, %s\n", n, runtime.NumCPU(), runtime.Version())
	times, err := lives(ctx, dir, shims, n)
	if err != nil {
		return err
	}
	printTimes(w, times)
	fmt.Fprintf(w, "\na shim with one container, after %v of idleness\n", idle)
	held, err := idleness(ctx, dir, shims, idle)
	if err != nil {
		return err
	}
	printHeld(w, held)
	return nil
}

// lives runs n lives of each shim in turns and returns the times, phase by phase.
func lives(ctx context.Context, dir string, shims [2]string, n int) ([2][phases][]time.Duration, error) {
	var times [2][phases][]time.Duration
	for i := range warmUp + n {
		for j := range shims {
			which := (i + j) % len(shims) // who goes first changes, too
			life, err := live(ctx, filepath.Join(dir, fmt.Sprintf("%d-%d", i, which)), shims[which])
			if err != nil {
				return times, fmt.Errorf("life %d of %s: %w", i, shims[which], err)
			}
			if i < warmUp {
				continue
			}
			for phase, took := range life {
				times[which][phase] = append(times[which][phase], took)
			}
		}
	}
	return times, nil
}

func printTimes(w io.Writer, times [2][phases][]time.Duration) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ms\tours\tp90\ttheirs\tp90\tratio\t")
	for phase := range phases {
		ours, theirs := times[0][phase], times[1][phase]
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t\n", phaseNames[phase],
			ms(quantile(ours, 0.5)), ms(quantile(ours, 0.9)),
			ms(quantile(theirs, 0.5)), ms(quantile(theirs, 0.9)),
			float64(quantile(ours, 0.5))/float64(quantile(theirs, 0.5)))
	}
	_ = table.Flush() // like fmt.Fprint to standard output
}

func printHeld(w io.Writer, held [2]holdings) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tours\ttheirs\tratio\t")
	for i, name := range holdingNames {
		fmt.Fprintf(table, "%s\t%d\t%d\t%.2f\t\n", name, held[0][i], held[1][i],
			float64(held[0][i])/float64(held[1][i]))
	}
	_ = table.Flush()
}

// quantile returns the value below which the part q of the values lies; 0 if there are none.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// A target is a figure that is to be reached: at least, or at most, the limit.
type target struct {
	name    string
	measure func([]flow, []echoes) float64
	limit   float64
	atMost  bool
}

// targets are those for the standard streams.
var targets = [...]target{
	{"output of a first process: throughput / bare FIFO of that size", func(f []flow, _ []echoes) float64 {
		return onlyDirect(f, ratio(f[exactMode].rate[ours], f[exactMode].rate[bare]))
	}, 0.95, false},
	{"output of a first process: throughput / theirs", func(f []flow, _ []echoes) float64 {
		return onlyDirect(f, ratio(f[directMode].rate[ours], f[directMode].rate[theirs]))
	}, 1.5, false},
	{"the same, stretch", func(f []flow, _ []echoes) float64 {
		return onlyDirect(f, ratio(f[directMode].rate[ours], f[directMode].rate[theirs]))
	}, 2, false},
	{"output of a first process: shim CPU / theirs", func(f []flow, _ []echoes) float64 {
		return onlyDirect(f, ratio(f[directMode].cpu[ours], f[directMode].cpu[theirs]))
	}, 0.01, true},
	{"output of an exec: shim CPU / theirs", func(f []flow, _ []echoes) float64 {
		return ratio(f[relayMode].cpu[ours], f[relayMode].cpu[theirs])
	}, 0.3, true},
	{"echo of a first process: round trip / bare FIFOs", func(f []flow, e []echoes) float64 {
		return onlyDirect(f, ratio(e[directMode].middle[ours], e[directMode].middle[bare]))
	}, 1.2, true},
}

// onlyDirect returns value if our first process holds the client's FIFO itself, else NaN: it does
// not where criu is installed.
func onlyDirect(flows []flow, value float64) float64 {
	if !flows[directMode].direct {
		return math.NaN()
	}
	return value
}

// met tells whether a figure reaches the target.
func (t target) met(value float64) string {
	switch {
	case math.IsNaN(value):
		return "not measured: the shim gave the process a pipe; is criu installed?"
	case t.atMost && value <= t.limit, !t.atMost && value >= t.limit:
		return "met"
	}
	return "not met"
}

func printTargets(w io.Writer, flows []flow, trips []echoes) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "target\tis\tshould be\t")
	for _, t := range targets {
		bound := "at least"
		if t.atMost {
			bound = "at most"
		}
		value := t.measure(flows, trips)
		fmt.Fprintf(table, "%s\t%s\t%s %g\t%s\n", t.name, figure(3, value), bound, t.limit, t.met(value))
	}
	_ = table.Flush()
}

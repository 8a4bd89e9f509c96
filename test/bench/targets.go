package main

import "math"

// A target is a row of the one table that is computed from the streams' own tables.
type target struct {
	line
	measure func([]flow, []echoes) float64
}

// targets are those for the standard streams. Each is a ratio, in the column of ours.
var targets = [...]target{
	{
		line{id: "out-bare", name: "output of a first process: throughput / bare FIFO of that size", bound: atLeast, limit: 0.95},
		func(f []flow, _ []echoes) float64 {
			return onlyDirect(f, ratio(f[exactMode].rate[ours], f[exactMode].rate[bare]))
		},
	},
	{
		line{id: "out", name: "output of a first process: throughput / theirs", bound: atLeast, limit: 1.5},
		func(f []flow, _ []echoes) float64 {
			return onlyDirect(f, ratio(f[directMode].rate[ours], f[directMode].rate[theirs]))
		},
	},
	{
		line{id: "out-stretch", name: "the same, stretch", bound: atLeast, limit: 2},
		func(f []flow, _ []echoes) float64 {
			return onlyDirect(f, ratio(f[directMode].rate[ours], f[directMode].rate[theirs]))
		},
	},
	{
		line{id: "out-cpu", name: "output of a first process: shim CPU / theirs", decimals: 4, bound: atMost, limit: 0.01},
		func(f []flow, _ []echoes) float64 {
			return onlyDirect(f, ratio(f[directMode].cpu[ours], f[directMode].cpu[theirs]))
		},
	},
	{
		line{id: "out-exec-cpu", name: "output of an exec: shim CPU / theirs", bound: atMost, limit: 0.3},
		func(f []flow, _ []echoes) float64 {
			return ratio(f[relayMode].cpu[ours], f[relayMode].cpu[theirs])
		},
	},
	{
		line{id: "echo", name: "echo of a first process: round trip / bare FIFOs", bound: atMost, limit: 1.2},
		func(f []flow, e []echoes) float64 {
			return onlyDirect(f, ratio(e[directMode].middle[ours], e[directMode].middle[bare]))
		},
	},
}

// noteTargets puts the targets on the sheet.
func (b *bench) noteTargets(flows []flow, trips []echoes) {
	for _, t := range targets {
		if t.decimals == 0 {
			t.decimals = 3
		}
		b.rule([]line{t.line}, b.counts())
		if value := t.measure(flows, trips); !math.IsNaN(value) {
			b.note(t.id, "ours", value)
		}
	}
}

// onlyDirect returns value if our first process holds the client's FIFO itself, else NaN: it does
// not where criu is installed.
func onlyDirect(flows []flow, value float64) float64 {
	if !flows[directMode].direct {
		return math.NaN()
	}
	return value
}

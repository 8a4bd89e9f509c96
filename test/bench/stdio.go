package main

import (
	"context"
	"fmt"
)

// stdio measures the standard streams, and puts on the sheet what there are targets for.
func (b *bench) stdio(ctx context.Context) error {
	fmt.Fprintf(b.w, "output, rounds of each: %d; a bare FIFO is of the size of ours\n", b.rounds)
	var flows []flow
	for i, m := range modes {
		f, err := b.measureFlow(ctx, m, fmt.Sprintf("out-%d", i))
		if err != nil {
			return err
		}
		flows = append(flows, f)
	}
	printFlows(b.w, flows)
	if b.plots != nil {
		b.plots.throughput = flows
	}
	fmt.Fprintf(b.w, "\necho of a line by cat, %d times each\n", 2*b.rounds*echoTrips)
	var trips []echoes
	for i, m := range echoModes {
		r, err := b.measureEcho(ctx, m, fmt.Sprintf("echo-%d", i))
		if err != nil {
			return err
		}
		trips = append(trips, r)
	}
	printEchoes(b.w, trips)
	b.noteTargets(flows, trips)
	counts, err := b.countStreams(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(b.w)
	printStreams(b.w, counts)
	return nil
}

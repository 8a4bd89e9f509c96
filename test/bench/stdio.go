package main

import (
	"context"
	"fmt"
)

// stdio measures the standard streams and prints which targets are met.
func (b *bench) stdio(ctx context.Context) error {
	fmt.Fprintf(b.w, "output, %d rounds each; a bare FIFO is of the size of ours\n", rounds)
	var flows []flow
	for i, m := range modes {
		f, err := b.measureFlow(ctx, m, fmt.Sprintf("out-%d", i))
		if err != nil {
			return err
		}
		flows = append(flows, f)
	}
	printFlows(b.w, flows)
	return nil
}

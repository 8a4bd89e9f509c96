package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	flag "github.com/spf13/pflag"

	"holdfast/internal/node"
)

// settled is how long a socket has to lie there untouched before it counts as left: a shim that is being
// started makes it a moment before it listens.
const settled = time.Minute

func setupCollect(f *flag.FlagSet) action {
	yes := f.Bool("yes", false, "remove what is named")
	return func(ctx context.Context, _ []string) (int, error) {
		n, err := node.Find(ctx, node.Config{})
		if err != nil {
			return 0, err
		}
		return 0, collect(os.Stdout, n, *yes, time.Now())
	}
}

// collect names what nobody needs any more, and removes it if that is wanted.
func collect(w io.Writer, n node.Node, remove bool, now time.Time) error {
	var failed []error
	removed, left := 0, 0
	for _, s := range n.Sockets {
		if now.Sub(s.Changed) < settled {
			continue
		}
		left++
		fmt.Fprintf(w, "socket without a shim: %s\n", s.Path)
		if !remove {
			continue
		}
		if err := s.Remove(); err != nil {
			failed = append(failed, err)
			continue
		}
		removed++
	}
	for _, b := range n.Bundles {
		fmt.Fprintf(w, "bundle without a shim, for its manager to remove: %s\n", b.Path)
	}
	switch {
	case removed > 0:
		fmt.Fprintf(w, "%d removed\n", removed)
	case left > 0 && !remove:
		fmt.Fprintln(w, "nothing was removed; `holdfast gc --yes` does")
	}
	return errors.Join(failed...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"holdfast/internal/client"
)

// holdings is what a process holds, in the order of holdingNames.
type holdings [5]int

var holdingNames = [len(holdings{})]string{
	"private dirty, KiB", "resident, KiB", "proportional, KiB", "threads", "descriptors",
}

// idleness prints what each shim holds with a container that is left alone.
func (b *bench) idleness(ctx context.Context) error {
	fmt.Fprintf(b.w, "a shim with one container, after %v of idleness\n", b.idle)
	held, err := b.leaveAlone(ctx)
	if err != nil {
		return err
	}
	printHeld(b.w, held)
	return nil
}

// leaveAlone starts a container on each shim, waits, and returns what the shims hold.
func (b *bench) leaveAlone(ctx context.Context) (held [2]holdings, err error) {
	var sessions [2]*client.Session
	defer func() {
		for _, s := range sessions {
			if s != nil {
				err = errors.Join(err, crash(ctx, s))
			}
		}
	}()
	for i, shim := range b.shims {
		path := filepath.Join(b.dir, fmt.Sprintf("idle-%d", i))
		if sessions[i], _, err = begin(ctx, path, shim, idler(), streams{}); err != nil {
			return held, err
		}
	}
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return held, ctx.Err()
	}
	for i, s := range sessions {
		if held[i], err = holdingsOf(s.Pid()); err != nil {
			return held, err
		}
	}
	return held, nil
}

// holdingsOf asks the kernel (proc(5): smaps_rollup, status, fd).
func holdingsOf(pid int) (held holdings, err error) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	for i, field := range []struct{ file, name string }{
		{"smaps_rollup", "Private_Dirty:"}, {"smaps_rollup", "Rss:"}, {"smaps_rollup", "Pss:"},
		{"status", "Threads:"},
	} {
		if held[i], err = number(proc+field.file, field.name); err != nil {
			return held, err
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	held[len(held)-1] = len(fds)
	return held, err
}

// number returns the number that follows a name in a file.
func number(path, name string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, path)
}

func printHeld(w io.Writer, held [2]holdings) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tours\ttheirs\tratio\t")
	for i, name := range holdingNames {
		fmt.Fprintf(table, "%s\t%d\t%d\t%.2f\t\n", name, held[ours][i], held[theirs][i],
			float64(held[ours][i])/float64(held[theirs][i]))
	}
	_ = table.Flush()
}

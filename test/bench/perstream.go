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
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// A census is how many descriptors and goroutines a shim has.
type census struct{ descriptors, goroutines int }

// crowds are the processes whose streams are counted, and how many streams each has.
var crowds = [...]struct {
	name           string
	streams        int
	exec, terminal bool
}{
	{name: "FIFOs, first process", streams: 3},
	{name: "FIFOs, exec", streams: 3, exec: true},
	{name: "terminal", streams: 2, terminal: true},
}

// perStream is what one stream costs a shim: the difference between a process with streams and one
// without any, by the number of streams.
type perStream struct {
	name                    string
	descriptors, goroutines [2]float64 // ours, theirs
}

// countStreams counts for each of the crowds.
func (b *bench) countStreams(ctx context.Context) ([]perStream, error) {
	var all []perStream
	for i, crowd := range crowds {
		p := perStream{name: crowd.name}
		for side, shim := range b.shims[:2] {
			var counts [2]census
			for full := range counts {
				// Short, for the sake of the socket in it.
				dir := filepath.Join(b.dir, fmt.Sprintf("n%d%d%d", i, side, full))
				cfg := idler()
				cfg.Terminal = crowd.terminal && full == 1
				var err error
				if counts[full], err = take(ctx, dir, shim, cfg, full == 1, crowd.exec); err != nil {
					return nil, fmt.Errorf("%s of %s: %w", crowd.name, sideNames[side], err)
				}
			}
			n := float64(crowd.streams)
			p.descriptors[side] = float64(counts[1].descriptors-counts[0].descriptors) / n
			p.goroutines[side] = float64(counts[1].goroutines-counts[0].goroutines) / n
		}
		all = append(all, p)
	}
	return all, nil
}

// take starts a container, and an exec in it if that is asked for, with or without FIFOs for its
// streams, and takes the census of its shim.
func take(
	ctx context.Context, dir string, shim contender, cfg client.BundleConfig, full, exec bool,
) (c census, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return c, err
	}
	var to streams
	if full {
		var ends []int
		to, ends, err = openStreams(dir, cfg.Terminal)
		defer func() {
			for _, fd := range ends {
				err = errors.Join(err, unix.Close(fd))
			}
		}()
		if err != nil {
			return c, err
		}
	}
	s, _, err := beginMode(ctx, filepath.Join(dir, filepath.Base(dir)), shim, cfg, to, exec)
	if s != nil {
		defer func() { err = errors.Join(err, crash(ctx, s)) }()
	}
	if err != nil {
		return c, err
	}
	if c.descriptors, err = settledDescriptors(ctx, s.Pid()); err != nil {
		return c, err
	}
	c.goroutines, err = goroutines(ctx, s)
	return c, err
}

// openStreams makes the FIFOs of a process and opens our ends.
func openStreams(dir string, terminal bool) (to streams, ends []int, err error) {
	open := func(name string, flags int) string {
		path := filepath.Join(dir, name)
		fd, openErr := openFIFO(path, flags)
		if openErr == nil {
			ends = append(ends, fd)
		}
		err = errors.Join(err, openErr)
		return path
	}
	to.stdin = open("stdin", unix.O_RDWR)
	to.stdout = open("stdout", unix.O_RDONLY)
	if !terminal {
		to.stderr = open("stderr", unix.O_RDONLY)
	}
	return to, ends, err
}

const (
	lookEvery   = 20 * time.Millisecond
	quietLooks  = 15 // so many looks without a change mean that nothing more comes
	settleLimit = 10 * time.Second
)

// settle calls look until it has returned the same for a while, and not 0.
func settle(ctx context.Context, look func() (int, error)) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	last, same := 0, 0
	for {
		n, err := look()
		if err != nil {
			return 0, err
		}
		if n != last {
			last, same = n, 0
		}
		if same++; same > quietLooks && n > 0 {
			return n, nil
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for the shim to settle, at %d: %w", last, ctx.Err())
		}
	}
}

// settledDescriptors returns how many descriptors a process has once no call is under way any more.
func settledDescriptors(ctx context.Context, pid int) (int, error) {
	return settle(ctx, func() (int, error) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		return len(fds), err
	})
}

// goroutines asks the shim for its stacks, which it logs, and counts them.
func goroutines(ctx context.Context, s *client.Session) (int, error) {
	before := len(s.Log.String())
	if err := unix.Kill(s.Pid(), syscall.SIGUSR1); err != nil {
		return 0, fmt.Errorf("ask for stacks: %w", err)
	}
	var dump string
	_, err := settle(ctx, func() (int, error) {
		dump = s.Log.String()[before:]
		return len(dump), nil
	})
	return countGoroutines(dump), err
}

// countGoroutines counts the stacks in a log. Ours has them in several lines, each with the same
// beginning, which may part a stack anywhere; theirs has one long line.
func countGoroutines(log string) int {
	const head = ` msg="stacks"`
	var whole strings.Builder
	for line := range strings.Lines(log) {
		if _, rest, ok := strings.Cut(line, head); ok {
			line = strings.TrimSuffix(rest, "\n")
		}
		whole.WriteString(line)
	}
	n := 0
	for _, stack := range strings.Split(whole.String(), "goroutine ")[1:] {
		// A stack begins with "goroutine 7 [running]"; others are only mentioned, as creators.
		id, _, _ := strings.Cut(stack, " [")
		if _, err := strconv.Atoi(id); err == nil {
			n++
		}
	}
	return n
}

func printStreams(w io.Writer, all []perStream) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "per stream\tdescriptors: ours\ttheirs\tgoroutines: ours\ttheirs\t")
	for _, p := range all {
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t\n", p.name,
			p.descriptors[ours], p.descriptors[theirs], p.goroutines[ours], p.goroutines[theirs])
	}
	_ = table.Flush()
}

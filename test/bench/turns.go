package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// takeTurns gives every shim, and bare if there is one, its turn in each of n rounds, and before
// that in warm rounds whose number is negative. Who goes first changes.
func (b *bench) takeTurns(
	ctx context.Context, warm, n int, shim func(round int, c contender) error, bare func(round int) error,
) error {
	sides := len(b.shims)
	if bare != nil {
		sides++
	}
	for round := -warm; round < n; round++ {
		for i := range sides {
			if err := ctx.Err(); err != nil {
				return err
			}
			which := (round + warm + i) % sides
			var err error
			name := bareName
			if which == len(b.shims) {
				err = bare(round)
			} else {
				name = b.shims[which].name
				err = shim(round, b.shims[which])
			}
			if err != nil {
				return fmt.Errorf("round %d of %s: %w", round, name, err)
			}
		}
	}
	return nil
}

// withEach starts a container on every shim and has all of them measured. The containers' streams
// are FIFOs, as containerd's are, and this client has their other ends.
func (b *bench) withEach(
	ctx context.Context, name string, measure func(map[string]*client.Session) error,
) (err error) {
	sessions := map[string]*client.Session{}
	var ends []int
	defer func() {
		for _, s := range sessions {
			err = errors.Join(err, crash(ctx, s))
		}
		for _, fd := range ends {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for _, c := range b.shims {
		dir := filepath.Join(b.dir, name+c.short)
		io, fds, err := makeFIFOs(dir)
		ends = append(ends, fds...)
		if err != nil {
			return err
		}
		s, _, err := begin(ctx, filepath.Join(dir, filepath.Base(dir)), c, idler(), io)
		if s != nil {
			sessions[c.name] = s
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return measure(sessions)
}

// makeFIFOs makes dir, and three FIFOs in it, and opens the client's ends, which it returns
// also after an error.
func makeFIFOs(dir string) (io streams, fds []int, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return io, nil, err
	}
	for _, end := range []struct {
		path  *string
		name  string
		flags int
	}{
		{&io.stdin, "stdin", unix.O_RDWR}, // for reading too: there is no reader yet
		{&io.stdout, "stdout", unix.O_RDONLY},
		{&io.stderr, "stderr", unix.O_RDONLY},
	} {
		*end.path = filepath.Join(dir, end.name)
		fd, err := openFIFO(*end.path, end.flags)
		if err != nil {
			return io, fds, err
		}
		fds = append(fds, fd)
	}
	return io, fds, nil
}

// rest lets time pass.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

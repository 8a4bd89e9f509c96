package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

const (
	// echoTrips is how many round trips are a round.
	echoTrips = 300
	// echoWord is what the program that echoes says when it is about to.
	echoWord = "ready\n"
	// echoScript leaves the echo of a terminal to cat, and the lines as they are.
	echoScript = "if [ -t 0 ]; then stty raw -echo; fi; echo ready; exec cat"
)

// echoModes are those in which lines go there and back.
var echoModes = [...]mode{
	{name: "FIFOs, first process", sink: toFIFO},
	{name: "FIFOs, exec", sink: toFIFO, exec: true},
	{name: "terminal", sink: toTerminal},
}

// echo is a process that says what it hears, and our ends of its streams.
type echo struct {
	in, out int // the same for a terminal without a shim; -1: not open
	silent  int // standard error, of which nothing comes; -1: not open
	session *client.Session
	child   *exec.Cmd
}

// shimEcho starts an echo behind a shim.
func shimEcho(ctx context.Context, dir string, shim contender, m mode) (*echo, error) {
	e, err := newEcho(dir)
	if err != nil {
		return e, err
	}
	io := streams{stdin: filepath.Join(dir, "stdin"), stdout: filepath.Join(dir, "stdout")}
	if err := e.openFIFOs(io); err != nil {
		return e, err
	}
	cfg := client.BundleConfig{Args: []string{"sh", "-c", echoScript}, Terminal: m.sink == toTerminal}
	if !cfg.Terminal {
		io.stderr = filepath.Join(dir, "stderr")
		if e.silent, err = openFIFO(io.stderr, unix.O_RDONLY); err != nil {
			return e, err
		}
	}
	var pid int
	e.session, pid, err = beginMode(ctx, filepath.Join(dir, filepath.Base(dir)), shim, cfg, io, m.exec)
	if err != nil {
		return e, err
	}
	return e, errors.Join(pin(pid, true), e.await())
}

// bareEcho starts an echo without anything in between.
func bareEcho(dir string, m mode) (*echo, error) {
	e, err := newEcho(dir)
	if err != nil {
		return e, err
	}
	ends, err := e.openBare(dir, m)
	if err == nil {
		cmd := exec.Command("sh", "-c", echoScript)
		cmd.Stdin, cmd.Stdout = ends[0], ends[1]
		if err = cmd.Start(); err == nil {
			e.child = cmd
		}
	}
	for _, f := range ends {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return e, err
	}
	return e, errors.Join(pin(e.child.Process.Pid, true), e.await())
}

// openBare opens our ends of the streams and returns the process's.
func (e *echo) openBare(dir string, m mode) (ends [2]*os.File, err error) {
	if m.sink == toTerminal {
		master, slave, err := openPTY()
		if err != nil {
			return ends, err
		}
		e.in, e.out = master, master
		ends[0] = os.NewFile(uintptr(slave), "terminal")
		ends[1], err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", slave), os.O_RDWR|unix.O_NOCTTY, 0)
		return ends, err
	}
	io := streams{stdin: filepath.Join(dir, "stdin"), stdout: filepath.Join(dir, "stdout")}
	if err := e.openFIFOs(io); err != nil {
		return ends, err
	}
	if ends[0], err = os.OpenFile(io.stdin, os.O_RDONLY, 0); err != nil {
		return ends, err
	}
	ends[1], err = os.OpenFile(io.stdout, os.O_WRONLY, 0)
	return ends, err
}

func newEcho(dir string) (*echo, error) {
	return &echo{in: -1, out: -1, silent: -1}, os.Mkdir(dir, 0o700)
}

func (e *echo) openFIFOs(io streams) (err error) {
	// For reading too: there may be no reader yet.
	if e.in, err = openFIFO(io.stdin, unix.O_RDWR); err != nil {
		return err
	}
	e.out, err = openFIFO(io.stdout, unix.O_RDONLY)
	return err
}

// await reads the word that says that the echo is ready.
func (e *echo) await() error {
	got := make([]byte, len(echoWord))
	if err := readFull(e.out, got); err != nil {
		return fmt.Errorf("wait for the echo: %w", err)
	}
	if string(got) != echoWord {
		return fmt.Errorf("the echo says %q instead of %q", got, echoWord)
	}
	return nil
}

func readFull(fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := read(fd, buf)
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

// trips sends lines, each after the echo of the one before, and adds to times how long each took.
func (e *echo) trips(n int, times []time.Duration) ([]time.Duration, error) {
	var line, got [32]byte
	for i := range n {
		copy(line[:], fmt.Sprintf("%031d\n", i))
		began := time.Now()
		if _, err := again(unix.Write, e.in, line[:]); err != nil {
			return times, fmt.Errorf("write a line: %w", err)
		}
		if err := readFull(e.out, got[:]); err != nil {
			return times, fmt.Errorf("read the echo: %w", err)
		}
		times = append(times, time.Since(began))
		if !bytes.Equal(line[:], got[:]) {
			return times, fmt.Errorf("the echo of %q is %q", line, got)
		}
	}
	return times, nil
}

func (e *echo) close(ctx context.Context) error {
	var errs []error
	if e.session != nil {
		errs = append(errs, crash(ctx, e.session))
	}
	if e.child != nil {
		errs = append(errs, e.child.Process.Kill())
		_ = e.child.Wait() // it says that it was killed
	}
	if e.in == e.out {
		e.in = -1
	}
	for _, fd := range []int{e.in, e.out, e.silent} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// echoes is what was measured of a mode: all trips, and the median of each round.
type echoes struct {
	mode
	trips  [sides][]time.Duration
	middle [sides][]float64
}

// measureEcho measures a mode, as measureFlow does.
func (b *bench) measureEcho(ctx context.Context, m mode, name string) (r echoes, err error) {
	r.mode = m
	var all [sides]*echo
	defer func() {
		for _, e := range all {
			if e != nil {
				err = errors.Join(err, e.close(ctx))
			}
		}
	}()
	for side := range all {
		dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, side))
		if side == bare {
			all[side], err = bareEcho(dir, m)
		} else {
			all[side], err = shimEcho(ctx, dir, b.shims[side], m)
		}
		if err != nil {
			return r, fmt.Errorf("%s of %s: %w", m.name, sideNames[side], err)
		}
	}
	unpin, err := pinClient(false)
	if err != nil {
		return r, err
	}
	defer unpin()
	return r, r.run(ctx, all, 2*b.rounds)
}

// run runs the rounds, and one before that is not counted.
func (r *echoes) run(ctx context.Context, all [sides]*echo, rounds int) error {
	return turns(ctx, 1+rounds, func(round, side int) error {
		times, err := all[side].trips(echoTrips, nil)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", r.name, sideNames[side], err)
		}
		if round > 0 {
			r.trips[side] = append(r.trips[side], times...)
			r.middle[side] = append(r.middle[side], float64(quantile(times, 0.5)))
		}
		return nil
	})
}

func printEchoes(w io.Writer, all []echoes) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "µs\tours\tp99\ttheirs\tp99\tbare\tp99\tours/theirs\tours/bare\t")
	for _, r := range all {
		fmt.Fprint(table, r.name, "\t")
		for _, trips := range r.trips {
			fmt.Fprintf(table, "%.1f\t%.1f\t", 1000*ms(quantile(trips, 0.5)), 1000*ms(quantile(trips, 0.99)))
		}
		fmt.Fprintf(table, "%.2f\t%.2f\t\n",
			ratio(r.middle[ours], r.middle[theirs]), ratio(r.middle[ours], r.middle[bare]))
	}
	_ = table.Flush()
}

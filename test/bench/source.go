package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// A mode is a way of output: of the first process of a container, or of an exec.
type mode struct {
	name  string
	bytes int64 // in a round
	sink  sink
	exec  bool
	exact bool // writer and reader share one CPU; it is a comparison with bare alone
}

// A sink is what a client names for standard output.
type sink int

const (
	toFIFO sink = iota
	toTerminal
	toFile
	toLogger
)

// What the writer sees in its container.
const (
	selfInside = "/run/bench"
	ctlInside  = "/mnt"
)

// source is a writer on command and what its output goes to, with a shim between them or without.
type source struct {
	control, reply int
	out            int    // where its output is read; -1: something else takes it
	silent         int    // the other stream, of which nothing comes; -1: there is none
	file           string // what its output is stored in, if it is; else ""
	pid            int    // the writer's
	shim           int    // the shim's pid; 0: there is none
	direct         bool   // the process has the client's FIFO itself
	session        *client.Session
	children       []*exec.Cmd
}

// newSource makes the directory of a source, with the FIFOs by which the writer is told what to do.
func newSource(dir string, m mode) (*source, error) {
	s := &source{control: -1, reply: -1, out: -1, silent: -1}
	err := os.Mkdir(dir, 0o700)
	if err != nil {
		return s, err
	}
	if s.control, err = openFIFO(filepath.Join(dir, "control"), unix.O_RDWR); err != nil {
		return s, err
	}
	if s.reply, err = openFIFO(filepath.Join(dir, "reply"), unix.O_RDWR); err != nil {
		return s, err
	}
	if m.sink == toFile {
		// In memory: it is not the disk that is measured.
		f, err := os.CreateTemp("/dev/shm", "bench-")
		if err != nil {
			return s, err
		}
		s.file = f.Name()
		return s, f.Close()
	}
	return s, nil
}

// shimSource starts a container whose output goes through a shim.
func shimSource(ctx context.Context, dir, self string, shim contender, m mode) (*source, error) {
	s, err := newSource(dir, m)
	if err != nil {
		return s, err
	}
	out := streams{}
	switch m.sink {
	case toFile:
		out.stdout = "file://" + s.file
		out.stderr = out.stdout
	case toLogger:
		out.stdout = "binary://" + self + "?" + programWord + "=drain"
		out.stderr = out.stdout
	default:
		out.stdout = filepath.Join(dir, "stdout")
		if s.out, err = openFIFO(out.stdout, unix.O_RDONLY); err != nil {
			return s, err
		}
		if m.sink == toFIFO {
			// Theirs wants one.
			out.stderr = filepath.Join(dir, "stderr")
			if s.silent, err = openFIFO(out.stderr, unix.O_RDONLY); err != nil {
				return s, err
			}
		}
	}
	cfg := inContainer(dir, self, selfInside, programWord, "write", ctlInside+"/control", ctlInside+"/reply")
	cfg.Terminal = m.sink == toTerminal
	if s.session, s.pid, err = beginMode(ctx, filepath.Join(dir, filepath.Base(dir)), shim, cfg, out, m.exec); err != nil {
		return s, err
	}
	s.shim = s.session.Pid()
	if m.exact {
		if err := pin(s.pid, true); err != nil {
			return s, err
		}
	}
	s.direct, err = sameFile(fmt.Sprintf("/proc/%d/fd/1", s.pid), out.stdout)
	return s, err
}

// inContainer is the configuration of a container that runs args, with this binary and the FIFOs
// in dir at hand.
func inContainer(dir, self string, args ...string) client.BundleConfig {
	return client.BundleConfig{Args: args, Mounts: []specs.Mount{
		{Destination: ctlInside, Source: dir, Type: "bind", Options: []string{"bind"}},
		{Destination: selfInside, Source: self, Type: "bind", Options: []string{"bind", "ro"}},
	}}
}

// sameFile tells whether both paths lead to the same file. What is no path does not.
func sameFile(a, b string) (bool, error) {
	first, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	second, err := os.Stat(b)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(first, second), err
}

// bareSource starts the same writer without any shim, or container. size is that of the FIFO.
func bareSource(dir, self string, m mode, size int) (*source, error) {
	s, err := newSource(dir, m)
	if err != nil {
		return s, err
	}
	var stdout *os.File
	switch m.sink {
	case toFile:
		stdout, err = os.OpenFile(s.file, os.O_WRONLY|os.O_APPEND, 0)
	case toLogger:
		stdout, err = s.bareLogger(self)
	case toTerminal:
		var slave int
		if s.out, slave, err = openPTY(); err == nil {
			stdout = os.NewFile(uintptr(slave), "terminal")
		}
	default:
		s.out, stdout, err = bareFIFO(filepath.Join(dir, "stdout"), size)
	}
	if err != nil {
		return s, err
	}
	err = s.child(&exec.Cmd{Path: self, Stdout: stdout, Args: []string{
		self, programWord, "write", filepath.Join(dir, "control"), filepath.Join(dir, "reply"),
	}})
	if err == nil {
		s.pid = s.children[len(s.children)-1].Process.Pid
	}
	if err == nil && m.exact {
		err = pin(s.pid, true)
	}
	return s, errors.Join(err, stdout.Close())
}

// bareFIFO makes a FIFO of a size and opens its ends: ours, and a blocking one for a process.
func bareFIFO(path string, size int) (int, *os.File, error) {
	fd, err := openFIFO(path, unix.O_RDONLY)
	if err != nil {
		return -1, nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size); err != nil {
		return fd, nil, fmt.Errorf("set size of FIFO: %w", err)
	}
	end, err := os.OpenFile(path, os.O_WRONLY, 0)
	return fd, end, err
}

// bareLogger starts the logging program and returns the pipe to it.
func (s *source) bareLogger(self string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	err = s.child(&exec.Cmd{
		Path: self, Args: []string{self, programWord, "drain"}, ExtraFiles: []*os.File{r, null, null},
	})
	return w, errors.Join(err, r.Close(), null.Close())
}

// child starts a process that close ends.
func (s *source) child(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	s.children = append(s.children, cmd)
	return nil
}

// size returns that of the FIFO that the output is read from; 0 if it is none.
func (s *source) size() int {
	if s.out < 0 {
		return 0
	}
	size, err := unix.FcntlInt(uintptr(s.out), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 0 // a terminal
	}
	return size
}

// sample is what a round has taken.
type sample struct {
	took time.Duration // from the command to the last byte, and the word that all is written
	cpu  time.Duration // that the shim has used meanwhile
}

// round has the source write n bytes.
func (s *source) round(n int64, buf []byte) (r sample, err error) {
	if s.file != "" {
		if err := os.Truncate(s.file, 0); err != nil {
			return r, err
		}
	}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	began := time.Now()
	command := binary.LittleEndian.AppendUint64(nil, uint64(n))
	if _, err := again(unix.Write, s.control, command); err != nil {
		return r, fmt.Errorf("command writer: %w", err)
	}
	if s.out >= 0 {
		if err := drain(s.out, buf, n); err != nil {
			return r, fmt.Errorf("drain output: %w", err)
		}
	}
	if err := drain(s.reply, buf[:1], 1); err != nil {
		return r, fmt.Errorf("wait for writer: %w", err)
	}
	r.took = time.Since(began)
	after, err := s.cpu()
	r.cpu = after - before
	return r, err
}

func (s *source) cpu() (time.Duration, error) {
	if s.shim == 0 {
		return 0, nil
	}
	return cpuTime(s.shim)
}

// close ends the writer and frees everything. The directory stays.
func (s *source) close(ctx context.Context) error {
	var errs []error
	if s.session != nil {
		errs = append(errs, crash(ctx, s.session))
	}
	for _, cmd := range s.children {
		errs = append(errs, cmd.Process.Kill())
		_ = cmd.Wait() // it says that it was killed
	}
	for _, fd := range []int{s.control, s.reply, s.out, s.silent} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	if s.file != "" {
		errs = append(errs, os.Remove(s.file))
	}
	return errors.Join(errs...)
}

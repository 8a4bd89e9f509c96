package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// names are those of the descriptors 0, 1 and 2.
var names = [3]string{"stdin", "stdout", "stderr"}

// open opens everything; what it has opened when it fails Close frees.
func (s *IO) open(ctx context.Context) error {
	var t [3]target
	for i, given := range [3]string{s.cfg.Stdin, s.cfg.Stdout, s.cfg.Stderr} {
		if i == 2 && s.cfg.Terminal {
			break // contract T47: not even looked at
		}
		var err error
		if t[i], err = parse(names[i], given); err != nil {
			return err
		}
	}
	log := t[1].logger() || t[1].scheme == schemeFile
	if log && t[2].scheme == schemeNull && !s.cfg.Terminal {
		t[2] = t[1] // whoever names a log means both streams
	}
	if t[1].scheme == schemeFile && t[2].scheme == schemeFile && t[1].path == t[2].path && !t[1].same(t[2]) {
		return invalid("stderr", "it is stdout's file, with other limits; give both the same")
	}
	if err := s.openStdin(t[0]); err != nil {
		return err
	}
	if s.cfg.Terminal && t[1].scheme == schemeNull {
		return s.relay(1, nil) // the console has to be read all the same
	}
	if t[1].same(t[2]) {
		return s.openOutput(ctx, t[1], 1, 2)
	}
	if err := s.openOutput(ctx, t[1], 1); err != nil {
		return err
	}
	return s.openOutput(ctx, t[2], 2)
}

// openStdin opens the client's FIFO to read from, and holds it open for writing as well: there
// is no end of input, however clients come and go, until CloseStdin.
func (s *IO) openStdin(t target) error {
	if t.scheme == schemeNull {
		return nil
	}
	if t.logger() {
		return invalid("stdin", "a logger has no output")
	}
	at, isFIFO, err := locate(t.path)
	if err != nil {
		return missing("stdin", t.path, err)
	}
	defer unix.Close(at) //nolint:errcheck // an O_PATH descriptor has nothing to lose
	if isFIFO && s.cfg.Direct && !s.cfg.Terminal {
		if s.keeper, err = s.direct(0, at); err != nil {
			return missing("stdin", t.path, err)
		}
		return own(s.files[0], &s.cfg)
	}
	if isFIFO {
		// O_RDWR never waits for anybody (fifo(7)). Nor does the reader, then.
		if s.keeper, err = reopen(at, unix.O_RDWR|unix.O_NONBLOCK); err != nil {
			return missing("stdin", t.path, err)
		}
	}
	fd, err := reopen(at, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return missing("stdin", t.path, err)
	}
	src, err := newEnd(fd, "stdin")
	if err != nil {
		return err
	}
	return s.relay(0, src)
}

// openOutput opens what t names for the given streams, which share it.
func (s *IO) openOutput(ctx context.Context, t target, streams ...int) error {
	switch {
	case t.scheme == schemeNull:
		return nil
	case t.logger():
		return s.openLogger(ctx, t, streams)
	case t.scheme == schemeFile:
		return s.openLog(t, streams)
	}
	name := names[streams[0]]
	at, isFIFO, err := locate(t.path)
	if err != nil {
		return missing(name, t.path, err)
	}
	defer unix.Close(at) //nolint:errcheck // an O_PATH descriptor has nothing to lose
	if isFIFO && s.cfg.Direct && !s.cfg.Terminal {
		fd, err := s.direct(streams[0], at)
		if err != nil {
			return missing(name, t.path, err)
		}
		h := &hold{fd: fd}
		h.growth = s.cfg.Room.stretch(h)
		s.holds = append(s.holds, h)
		for _, i := range streams {
			s.files[i] = s.files[streams[0]]
		}
		return own(s.files[streams[0]], &s.cfg)
	}
	flags := unix.O_WRONLY | unix.O_APPEND | unix.O_NONBLOCK
	if isFIFO {
		// Both ends are ours: opening does not wait for the client (fifo(7)), and if the client
		// dies there is no SIGPIPE, and what was written is there when it comes back.
		flags = unix.O_RDWR | unix.O_NONBLOCK
	}
	fd, err := reopen(at, flags)
	if err != nil {
		return missing(name, t.path, err)
	}
	far, err := newEnd(fd, name)
	if err != nil {
		return err
	}
	if far.fifo = isFIFO; isFIFO {
		if !s.cfg.Terminal {
			widen(fd, s.cfg.Room.passage())
		}
		far.growth = s.cfg.Room.stretch(far.raw)
	}
	return s.relayAll(far, streams)
}

// openLog opens a log file for the given streams, and makes it and its directory if need be
// (contract 7.7).
func (s *IO) openLog(t target, streams []int) error {
	name := names[streams[0]]
	if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
		return missing(name, t.path, err)
	}
	if t.rotate.size > 0 {
		return s.openRotated(t, streams)
	}
	fd, err := openAppend(t.path)
	if err != nil {
		return missing(name, t.path, err)
	}
	if !s.cfg.Terminal {
		f := os.NewFile(uintptr(fd), name)
		for _, i := range streams {
			s.files[i] = f
		}
		return nil
	}
	far, err := newEnd(fd, name)
	if err != nil {
		return err
	}
	return s.relayAll(far, streams)
}

// openRotated opens a log file that is rotated. Both streams come by one pipe, so that they are in
// order and do not break into each other's lines.
func (s *IO) openRotated(t target, streams []int) error {
	log, err := openRotated(t.path, t.rotate, s.cfg.Log)
	if err != nil {
		return missing(names[streams[0]], t.path, err)
	}
	if err := s.add(streams[0], &relay{file: log}); err != nil {
		return err
	}
	for _, i := range streams[1:] {
		s.files[i] = s.files[streams[0]]
	}
	return nil
}

// relayAll prepares the relays of streams that share far, whose reference it takes.
func (s *IO) relayAll(far *end, streams []int) error {
	defer far.release()
	for _, i := range streams {
		if err := s.relay(i, far.share()); err != nil {
			return err
		}
	}
	return nil
}

// openLogger starts the logger that t names for the given streams.
func (s *IO) openLogger(ctx context.Context, t target, streams []int) error {
	var want [2]bool
	for _, i := range streams {
		want[i-1] = true
	}
	l, out, err := startLogger(ctx, &s.cfg, t, want, s.drained)
	if err != nil {
		return err
	}
	s.loggers = append(s.loggers, l)
	if s.cfg.Terminal {
		far, err := endOf(out[0])
		if err := errors.Join(err, out[0].Close()); err != nil {
			far.release()
			return err
		}
		return s.relay(1, far)
	}
	for _, i := range streams {
		s.files[i] = out[i-1]
	}
	for _, i := range streams {
		if err := own(s.files[i], &s.cfg); err != nil {
			return err
		}
	}
	return nil
}

// endOf makes an end of a copy of f's descriptor.
func endOf(f *os.File) (*end, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dup error
	err = raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(err, dup); err != nil {
		return nil, fmt.Errorf("copy descriptor of %s: %w", f.Name(), err)
	}
	return newEnd(fd, f.Name())
}

// relay prepares the relay of stream i between the process and far, whose reference it takes.
// Without a terminal the process gets one end of a pipe; with one the console comes later.
func (s *IO) relay(i int, far *end) error {
	if i == 0 {
		return s.add(i, &relay{input: true, src: far})
	}
	return s.add(i, &relay{dst: far})
}

// add prepares r, which has its far end already, as the relay of stream i.
func (s *IO) add(i int, r *relay) error {
	r.name, r.log, r.done = names[i], s.cfg.Log, make(chan struct{})
	s.relays = append(s.relays, r) // Close frees the far end from here on
	if s.cfg.Terminal {
		return nil
	}
	theirs, ours, err := pipe()
	if err != nil {
		return err
	}
	if !r.input {
		widen(ours, s.cfg.Room.passage())
		theirs, ours = ours, theirs
	}
	s.files[i] = os.NewFile(uintptr(theirs), r.name)
	near, err := newEnd(ours, r.name)
	if err != nil {
		return err
	}
	if r.input {
		r.dst = near
	} else {
		r.src = near
	}
	return own(s.files[i], &s.cfg)
}

// missing tells that a stream cannot be opened. The client has named it, so the fault is in the
// request. The errno stays inside: ENOENT could be taken for "no such task".
func missing(name, path string, err error) error {
	return fmt.Errorf("cannot open %s at %s: %v: %w", name, path, err, errdefs.ErrInvalidArgument)
}

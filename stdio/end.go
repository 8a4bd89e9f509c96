package stdio

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// end is a descriptor that relays read from or write to: nonblocking, and on Go's poller where
// the kernel can poll it (not a regular file, which never makes anybody wait).
//
// Its users hold one reference each and alone use fd; the last one closes it. Everybody else may
// only set deadlines, which ends the waiting but takes nothing away.
type end struct {
	f    *os.File
	fd   int             // of f, good until the last release
	raw  syscall.RawConn // of f
	refs atomic.Int32

	fifo   bool        // a client's FIFO for output, of which we hold both ends
	growth *elastic    // of a FIFO; or nil
	tty    bool        // a pty master, whose hang-up is final only once the process is gone
	exited atomic.Bool // the process is gone
}

// newEnd makes an end of fd, which it takes over, with one reference.
func newEnd(fd int, name string) (*end, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make %s nonblocking: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", name, err), f.Close())
	}
	e := &end{f: f, fd: fd, raw: raw}
	e.refs.Store(1)
	return e, nil
}

// share takes another reference.
func (e *end) share() *end {
	e.refs.Add(1)
	return e
}

// release gives a reference back; a nil end has none.
func (e *end) release() {
	if e != nil && e.refs.Add(-1) == 0 {
		e.close()
	}
}

// close is for the last user.
func (e *end) close() {
	e.growth.release()
	e.f.Close()
}

// retire is release for an end that the process's output went to. The last user of a FIFO gets
// its heir, to say farewell with; there is none otherwise, -1.
func (e *end) retire() (writer int) {
	if e == nil || e.refs.Add(-1) > 0 {
		return -1
	}
	defer e.close()
	if !e.fifo {
		return -1
	}
	return heir(e.fd)
}

// waitRead waits until a read would not block: there are bytes, or the end of them, or an error.
// It returns os.ErrDeadlineExceeded after the read deadline, also when it need not wait.
func (e *end) waitRead() error {
	return e.raw.Read(func(uintptr) bool { return e.ready(unix.POLLIN) })
}

// waitWrite waits until a write would not block, as waitRead does.
func (e *end) waitWrite() error {
	return e.raw.Write(func(uintptr) bool { return e.ready(unix.POLLOUT) })
}

// ready asks the kernel for the present state. The poller tells of changes only, and forgets
// those from before it was asked to wait; it calls ready after that, so no change is lost.
func (e *end) ready(events int16) bool {
	want := events | unix.POLLHUP | unix.POLLERR | unix.POLLNVAL
	if e.tty && !e.exited.Load() {
		// While nobody has the slave open, poll(2) reports a hang-up without end. It tells
		// nothing: the process may still be about to open it. What it writes then is a change.
		want = events
	}
	fds := []unix.PollFd{{Fd: int32(e.fd), Events: events}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		// If poll itself fails the read or write must speak.
		return err != nil || n > 0 && fds[0].Revents&want != 0
	}
}

// The deadlines of a regular file cannot be set and are not missed: it never waits. Those of a
// closed end are not missed either: its last user is gone.
func (e *end) readDeadline(t time.Time) {
	if e != nil {
		_ = e.f.SetReadDeadline(t)
	}
}

func (e *end) writeDeadline(t time.Time) {
	if e != nil {
		_ = e.f.SetWriteDeadline(t)
	}
}

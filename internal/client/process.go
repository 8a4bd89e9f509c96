package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// pollSlice is how long one poll of a process lasts: so late may Wait notice that its context has
// ended.
const pollSlice = 50 * time.Millisecond

// Process is a handle of any process, a shim for instance, which need not be a child. It means the
// same process even when its pid is used again (pidfd_open(2)).
type Process struct {
	pid, fd int
}

// OpenProcess returns a handle of the process that has pid now. The caller closes it.
func OpenProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{pid: pid, fd: fd}, nil
}

// Pid returns the pid, which may be another's once the process has ended.
func (p *Process) Pid() int { return p.pid }

// Kill sends SIGKILL. It is no error if the process has ended already.
func (p *Process) Kill() error {
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

// Wait waits until the process has ended, whoever its parent is and whether or not that has waited
// for it.
func (p *Process) Wait(ctx context.Context) error {
	for {
		// Readable means ended.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(pollSlice.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", p.pid, err)
		case ctx.Err() != nil:
			return fmt.Errorf("wait for process %d to end: %w", p.pid, ctx.Err())
		}
	}
}

// Close frees the handle; the process is not touched. No method may be called afterwards.
func (p *Process) Close() { unix.Close(p.fd) }

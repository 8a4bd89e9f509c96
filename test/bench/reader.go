package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a stream may deliver nothing, so that a shim that hangs ends the
// measurement.
const patience = 20 * time.Second

// read reads what there is in a non-blocking descriptor, and waits for it if there is nothing. It
// is the client of every measurement. Go's poller has no part in it: it would add to each time.
func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.ErrUnexpectedEOF
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return 0, fmt.Errorf("read: %w", err)
		}
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		ready, err := unix.Poll(fds[:], int(patience.Milliseconds()))
		if ready == 0 && err == nil {
			return 0, fmt.Errorf("nothing to read for %v", patience)
		}
	}
}

// drain reads n bytes.
func drain(fd int, buf []byte, n int64) error {
	for n > 0 {
		got, err := read(fd, buf)
		if err != nil {
			return fmt.Errorf("%w; %d bytes are missing", err, n)
		}
		n -= int64(got)
	}
	if n < 0 {
		return fmt.Errorf("%d bytes more than were written", -n)
	}
	return nil
}

// cpuTime returns how long all threads of a process, those that have ended included, have run so
// far. It is the process's CPU clock (clock_getcpuclockid(3)), in nanoseconds: what /proc says is
// in ticks of 10 ms, or leaves out the threads that have ended.
func cpuTime(pid int) (time.Duration, error) {
	var spent unix.Timespec
	// The id of the clock is the complement of the pid, above three bits that say "as scheduled".
	if err := unix.ClockGettime(^int32(pid)<<3|2, &spent); err != nil {
		return 0, fmt.Errorf("read CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(spent.Nano()), nil
}

package stdio

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A logger that is behind is looked at in intervals that grow from the first to the second.
const (
	firstBacklogLook = 2 * time.Millisecond
	lastBacklogLook  = 100 * time.Millisecond
)

// catchUp waits until the pipes are empty; no longer than until limit, until gone is closed, or
// until there is no hope any more. A logger may stop reading when it hears of the exit, or of
// SIGTERM, so neither should come before that.
func (l *logger) catchUp(limit time.Time, gone <-chan struct{}) {
	for pause := firstBacklogLook; l.held() > 0; pause = min(2*pause, lastBacklogLook) {
		left := time.Until(limit)
		if left <= 0 || l.failed.Load() >= fruitless {
			return
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-timer.C:
		case <-l.kept:
			timer.Stop()
			return
		case <-gone:
			timer.Stop()
			return
		}
	}
}

// held returns how many bytes are in the pipes.
func (l *logger) held() (sum int) {
	for _, f := range l.in {
		control(f, func(fd int) {
			if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
				sum += n
			}
		})
	}
	return sum
}

// finished tells whether the pipes are empty, and have no writers, and so never will have.
func (l *logger) finished() bool {
	over := 0
	for _, f := range l.in {
		control(f, func(fd int) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, 0); err == nil && fds[0].Revents == unix.POLLHUP {
				over++
			}
		})
	}
	return over == len(l.in)
}

// control lends f's descriptor to use; not if f is closed.
func control(f *os.File, use func(fd int)) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { use(int(fd)) }) // it fails if f is closed
}

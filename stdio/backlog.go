package stdio

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A logger that is behind is looked at in intervals that grow from the first to the second.
const (
	firstBacklogLook = 2 * time.Millisecond
	lastBacklogLook  = 100 * time.Millisecond
)

// pipeName is what /proc/<pid>/fd shows for the pipe at fd: no other pipe has the same name.
func pipeName(fd int) (string, error) {
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

// catchUp waits until the logger has read what its pipes hold, or has ended; no longer than until
// limit, and until gone is closed. A logger may stop reading when it hears of the exit, or of
// SIGTERM, so neither should come before that.
func (l *logger) catchUp(limit time.Time, gone <-chan struct{}) {
	for pause := firstBacklogLook; l.behind(); pause = min(2*pause, lastBacklogLook) {
		left := time.Until(limit)
		if left <= 0 {
			return
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-timer.C:
		case <-l.child.Done():
			timer.Stop()
			return
		case <-gone:
			timer.Stop()
			return
		}
	}
}

// behind tells whether there are bytes in a pipe that the logger still has at its place. Of a
// logger that has moved it we cannot know, and do not wait for it.
func (l *logger) behind() bool {
	for i, name := range l.pipes {
		// The name guards against a pid, or a descriptor, that has come to mean something else.
		path := fmt.Sprintf("/proc/%d/fd/%d", l.child.Pid(), 3+i)
		if link, err := os.Readlink(path); err != nil || link != name {
			continue
		}
		fd, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			continue
		}
		now, err := pipeName(fd)
		n, ioctlErr := unix.IoctlGetInt(fd, unix.TIOCINQ)
		unix.Close(fd) //nolint:errcheck // nothing was written to it
		if err == nil && ioctlErr == nil && now == name && n > 0 {
			return true
		}
	}
	return false
}

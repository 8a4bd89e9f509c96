package stdio

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

const (
	// A client that is not there yet, or is being restarted, is looked for at intervals that
	// grow from the first to the second. Nothing else tells of a reader that opens a FIFO.
	firstLook = 5 * time.Millisecond
	lastLook  = time.Second
)

// heir opens the FIFO at fd, which we hold at both ends, for writing alone. Without descriptors
// left it returns -1.
func heir(fd int) (writer int) {
	writer, err := reopen(fd, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return -1
	}
	return writer
}

// farewell ends the stream of an output FIFO, when writer, its heir, is all that we hold of it. If
// the client has the FIFO open the end is immediate. If it has not, what is in the FIFO would be
// lost and the client, coming to open it, would wait for ever: then the writer stays until a
// reader is there, or until gone is closed.
//
// A child of ours that does not run its program yet has a copy of what we held, and so is a reader
// as far as the kernel knows. The end waits until no such child is left. (Those that are started later
// have no copy: what we held is closed by now.)
func farewell(writer int, gone <-chan struct{}) {
	if writer < 0 {
		return
	}
	defer unix.Close(writer) //nolint:errcheck // a FIFO has nothing to flush
	forks := reaper.Forking()
	stay(writer, gone, func() bool {
		forks = slices.DeleteFunc(forks, (*reaper.Fork).Over)
		return len(forks) > 0
	})
}

// stay waits for a reader other than the copies that children have, as copied tells, or for gone.
func stay(writer int, gone <-chan struct{}, copied func() bool) {
	for pause := firstLook; !isClosed(gone); pause = min(2*pause, lastLook) {
		// In this order: a copy that is let go in between must not count as a reader.
		uncertain := copied()
		if hasReader(writer) {
			if !uncertain {
				return
			}
			pause = firstLook
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-gone:
			timer.Stop()
		}
	}
}

// hasReader tells whether anybody holds the FIFO that fd writes to open for reading.
func hasReader(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLERR == 0
}

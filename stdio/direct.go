package stdio

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// roomy is the size that a FIFO of output is given when the process writes to it directly: the
// most that a user without privileges may ask for by default, and 2 GB/s instead of 0.5.
const roomy = 1 << 20

// direct hands the process the FIFO at the location at itself, in a file description of its own:
// it is blocking, as programs expect, whatever we or the client do to ours. What is returned is
// our hold on both ends of the FIFO, which waits for nobody (fifo(7)).
func (s *IO) direct(i, at int) (hold int, err error) {
	hold, err = reopen(at, unix.O_RDWR|unix.O_NONBLOCK)
	if err != nil {
		return -1, err
	}
	flags := unix.O_RDONLY
	if i > 0 {
		flags = unix.O_WRONLY
		widen(hold, s.cfg.Room.base())
	}
	fd, err := reopen(at, flags)
	if err != nil {
		unix.Close(hold) //nolint:errcheck // nothing was written to it
		return -1, err
	}
	s.files[i] = os.NewFile(uintptr(fd), names[i])
	return hold, nil
}

// widen makes a FIFO roomy. The kernel may refuse, to a user who has many; it works as it is, too.
func widen(fd, want int) {
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && size < want {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, want)
	}
}

// hold is our hold on an output FIFO that the process writes to itself.
type hold struct {
	growth *elastic // of the FIFO, or nil

	mu sync.Mutex // guards fd, also while it is in use: for calls that do not wait
	fd int        // -1 once it is closed
}

// Control lends the descriptor to use, which must not wait.
func (h *hold) Control(use func(fd uintptr)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return os.ErrClosed
	}
	use(uintptr(h.fd))
	return nil
}

// retire closes the hold and returns its heir.
func (h *hold) retire() (writer int) {
	h.growth.release()
	h.mu.Lock()
	defer h.mu.Unlock()
	writer = heir(h.fd)
	unix.Close(h.fd) //nolint:errcheck // a FIFO has nothing to flush
	h.fd = -1
	return writer
}

// letGo gives up our hold on the FIFOs that the process had itself, now that it is gone, and so
// ends the streams. Called with mu held.
func (s *IO) letGo() {
	for _, h := range s.holds {
		writer := h.retire()
		s.tails.Go(func() { farewell(writer, s.gone) })
	}
	s.holds = nil
}

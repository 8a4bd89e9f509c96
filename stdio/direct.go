package stdio

import (
	"os"

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
		grow(hold)
	}
	fd, err := reopen(at, flags)
	if err != nil {
		unix.Close(hold) //nolint:errcheck // nothing was written to it
		return -1, err
	}
	s.files[i] = os.NewFile(uintptr(fd), names[i])
	return hold, nil
}

// grow makes a FIFO roomy. The kernel may refuse, to a user who has many; it works as it is, too.
func grow(fd int) {
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && size < roomy {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, roomy)
	}
}

// letGo gives up our hold on the FIFOs that the process had itself, now that it is gone, and so
// ends the streams. Called with mu held.
func (s *IO) letGo() {
	for _, fd := range s.holds {
		writer := heir(fd)
		unix.Close(fd) //nolint:errcheck // a FIFO has nothing to flush
		s.tails.Go(func() { farewell(writer, s.gone) })
	}
	s.holds = nil
}

package stdio

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// closeFiles closes those that are there, each once, and forgets them.
func closeFiles(files []*os.File) error {
	var errs []error
	seen := map[*os.File]bool{nil: true}
	for i, f := range files {
		if !seen[f] {
			seen[f] = true
			errs = append(errs, f.Close())
		}
		files[i] = nil
	}
	return errors.Join(errs...)
}

// own gives what f refers to to the user that the process runs as, which may have to reopen it
// by /proc/self/fd; pipes are ours, and root's, otherwise.
func own(f *os.File, cfg *Config) error {
	if cfg.UID == 0 && cfg.GID == 0 {
		return nil
	}
	var fchown error
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { fchown = unix.Fchown(int(fd), cfg.UID, cfg.GID) })
	}
	if err := errors.Join(err, fchown); err != nil {
		return fmt.Errorf("give %s to uid %d: %w", f.Name(), cfg.UID, err)
	}
	return nil
}

// pipe makes an anonymous pipe whose ends are blocking, as the container and loggers expect.
func pipe() (r, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, fmt.Errorf("make pipe: %w", err)
	}
	return fds[0], fds[1], nil
}

// locate opens path as a mere location, so that what is looked at is also what is opened, and
// tells whether it is a FIFO.
func locate(path string) (at int, isFIFO bool, err error) {
	at, err = open(path, unix.O_PATH)
	if err != nil {
		return -1, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		unix.Close(at)
		return -1, false, err
	}
	return at, st.Mode&unix.S_IFMT == unix.S_IFIFO, nil
}

// reopen opens what the descriptor at refers to, with a file description of its own.
func reopen(at, flags int) (int, error) {
	return open("/proc/self/fd/"+strconv.Itoa(at), flags)
}

// openAppend opens a log file, and makes it if need be. A FIFO that nobody reads is an error, rather
// than waited for.
func openAppend(path string) (int, error) {
	fd, err := open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return -1, err
	}
	return fd, nil
}

// open never makes a terminal ours, and leaks nothing into a child.
func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0o644)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

package stdio

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newConsole turns a pty master into an end, whatever mode it was handed over in. The end has
// the only descriptor: master is closed, also on an error.
func newConsole(master *os.File) (*end, error) {
	if master == nil {
		return nil, errors.New("attach console: the runtime sent none")
	}
	console, err := endOf(master)
	if err := errors.Join(err, master.Close()); err != nil {
		console.release()
		return nil, fmt.Errorf("attach console: %w", err)
	}
	console.tty = true
	return console, nil
}

// resize sets the size of the console. If it is gone nobody misses it.
func (e *end) resize(size *unix.Winsize) error {
	var ioctl error
	err := e.raw.Control(func(fd uintptr) {
		ioctl = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size)
	})
	if err == nil && ioctl != nil {
		return fmt.Errorf("resize console: %w", ioctl)
	}
	return nil
}

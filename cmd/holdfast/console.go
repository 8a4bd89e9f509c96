package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// console is a terminal of ours in raw mode: every key, Ctrl-C too, goes to the process.
type console struct {
	fd    int
	saved unix.Termios
}

// rawConsole puts f into raw mode. It returns nil if f is not a terminal.
func rawConsole(f *os.File) (*console, error) {
	fd := int(f.Fd())
	saved, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, nil // not a terminal: there is nothing to set, and nothing to restore
	}
	raw := *saved
	// The list is that of cfmakeraw in termios(3).
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR |
		unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, os.NewSyscallError("set terminal to raw mode", err)
	}
	return &console{fd: fd, saved: *saved}, nil
}

// restore gives the terminal back as it was found. It can be repeated; c may be nil.
func (c *console) restore() {
	if c != nil {
		// Drained first, so that what has been written is shown in the mode it was written for.
		// If the terminal is gone there is nobody to tell.
		unix.IoctlSetTermios(c.fd, unix.TCSETSW, &c.saved)
	}
}

// restoreInPanic is for goroutines that run while the terminal is raw: a bug of ours must not leave it
// so, nor be hidden.
func (c *console) restoreInPanic() {
	if reason := recover(); reason != nil {
		c.restore()
		panic(reason)
	}
}

// windowSize returns the size of the first of files that is a terminal.
func windowSize(files ...*os.File) (width, height uint32, ok bool) {
	for _, f := range files {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
			return uint32(ws.Col), uint32(ws.Row), true
		}
	}
	return 0, 0, false
}

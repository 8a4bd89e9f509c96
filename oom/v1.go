package oom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// The eventfd fires when memory has run out, before the kernel looks for a victim; so the count is
	// read again after firstPause, after twice that, and so on up to lastPause, four seconds in all.
	// Printing the report on a serial console alone may take the kernel a second.
	firstPause = time.Millisecond
	lastPause  = 2048 * time.Millisecond
)

// open1 opens memory.oom_control and has the kernel fire an eventfd when memory runs out (cgroup
// v1 documentation, "Memory Resource Controller", 10. OOM Control).
func (w *Watch) open1(dir string) error {
	f, err := openFile(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return err
	}
	w.counter = f
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	wake := os.NewFile(uintptr(fd), "eventfd")
	if err := register(dir, fd, f); err != nil {
		_ = wake.Close()
		if refused(err) {
			return nil // Close will look
		}
		return err
	}
	w.wake = wake
	return nil
}

// register tells the kernel which eventfd to fire. The registration ends with the eventfd.
func register(dir string, eventfd int, counter *os.File) error {
	control, err := os.OpenFile(filepath.Join(dir, "cgroup.event_control"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer control.Close() // the outcome is that of the write
	raw, err := counter.SyscallConn()
	if err != nil {
		return err
	}
	var werr error
	if err := raw.Control(func(fd uintptr) {
		_, werr = fmt.Fprintf(control, "%d %d", eventfd, fd)
	}); err != nil {
		return err
	}
	return werr
}

// refused tells whether the kernel or its configuration does not let us be notified.
func refused(err error) bool {
	refusals := []error{unix.EACCES, unix.EPERM, unix.EROFS, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOENT}
	return slices.ContainsFunc(refusals, func(no error) bool { return errors.Is(err, no) })
}

// run1 waits for the eventfd. It fires as well when the group is removed; then the counter
// can no longer be read.
func (w *Watch) run1() {
	raw, err := w.wake.SyscallConn()
	if err != nil {
		return // closed; cannot be before Close has joined us
	}
	for raw.Read(w.fires) == nil {
		if !w.chase(raw) {
			return
		}
	}
}

// fired empties an eventfd and tells whether there was anything in it.
func fired(fd uintptr) bool {
	var events [8]byte
	_, err := unix.Read(int(fd), events[:])
	return err == nil && binary.NativeEndian.Uint64(events[:]) > 0
}

// fires is fired for the container's own eventfd.
func (w *Watch) fires(fd uintptr) bool {
	yes := fired(fd)
	w.hit = w.hit || yes
	return yes
}

// hasFired tells whether the container's own eventfd has fired since the last kill. It does not wait.
func (w *Watch) hasFired() bool {
	raw, err := w.wake.SyscallConn()
	if err != nil {
		return w.hit
	}
	if err := raw.Control(func(fd uintptr) { w.fires(fd) }); err != nil {
		return w.hit
	}
	return w.hit
}

// chase looks at the counter until it has not risen for a while. It is false if there is no more
// to come.
func (w *Watch) chase(raw syscall.RawConn) bool {
	for pause := firstPause; pause <= lastPause; pause *= 2 {
		rose, err := w.look()
		if err != nil || !w.setDeadline(time.Now().Add(pause)) {
			return false
		}
		again := raw.Read(w.fires)
		if again != nil && !errors.Is(again, os.ErrDeadlineExceeded) {
			return false
		}
		if rose || again == nil {
			pause = firstPause / 2
		}
	}
	if _, err := w.look(); err != nil {
		return false
	}
	w.hit = false
	w.limits.forget()
	return w.setDeadline(time.Time{})
}

// setDeadline sets how long the goroutine waits for the eventfd; it is false once Close has been
// called. Close says so before it sets its own deadline: either it comes after ours, or we see it.
func (w *Watch) setDeadline(at time.Time) bool {
	return w.wake.SetReadDeadline(at) == nil && !w.closing.Load()
}

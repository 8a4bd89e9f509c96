package runc

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// buffer is an anonymous file for a command to write to or read from. Unlike a pipe it needs
// nobody at the other end, so whoever inherits it can keep it open for as long as he likes; its
// pages are charged to those who write them.
type buffer struct{ *os.File }

func newBuffer(name string) (*buffer, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_NOEXEC_SEAL
	fd, err := unix.MemfdCreate("runc "+name, flags)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 it cannot be barred from being executed
		fd, err = unix.MemfdCreate("runc "+name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("open a buffer for the runtime's %s: %w", name, err)
	}
	return &buffer{os.NewFile(uintptr(fd), name)}, nil
}

// fill makes content what the next reader finds.
func (b *buffer) fill(content []byte) error {
	if _, err := b.Write(content); err != nil {
		return fmt.Errorf("fill the buffer for the runtime's %s: %w", b.Name(), err)
	}
	if _, err := b.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewind the buffer for the runtime's %s: %w", b.Name(), err)
	}
	return nil
}

// all returns what was written, or an error if that is more than limit bytes.
func (b *buffer) all(limit int64) ([]byte, error) { return readAll(b.File, limit) }

// tail returns the last bytes of what was written, at most limit.
func (b *buffer) tail(limit int64) ([]byte, error) { return readTail(b.File, limit) }

// readAll returns the whole of f, or an error if that is more than limit bytes.
func readAll(f *os.File, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", f.Name(), limit)
	}
	return content, nil
}

// readTail returns the end of f, at most limit bytes.
func readTail(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
}

// Package bundle opens and makes the files of a container's bundle.
//
// What is in a bundle may have been put there by somebody else: a link to a file elsewhere, a FIFO that
// nobody reads. So the package follows no link out of the directory of a file, waits for nobody, and
// what it makes is a file that was not there before (open(2), O_EXCL). Of what the files hold it knows
// the pid of the init process, and nothing else.
package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Open opens a regular file for reading.
func Open(path string) (*os.File, error) {
	// Most are no links, and a file that is none needs no root to be held in.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) {
		f, err = openLink(path)
	}
	if err != nil {
		return nil, err
	}
	if err := Regular(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadFile returns what a file holds that Open would open, or an error if that is more than limit bytes. It is for
// small ones: with an os.File it would take twice as many calls of the kernel, one of them to ask Go's poller
// whether it has use for the file.
func ReadFile(path string, limit int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return readLink(path, limit)
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errIrregular
	}
	if st.Size > int64(limit) {
		return nil, tooLong(path, limit)
	}
	content := make([]byte, st.Size)
	for n := 0; n < len(content); {
		got, err := unix.Pread(fd, content[n:], int64(n))
		switch {
		case err == unix.EINTR: //nolint:errorlint // an errno as the kernel gave it
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case got == 0:
			return content[:n], nil // it has become shorter
		}
		n += max(got, 0)
	}
	return content, nil
}

// readLink is ReadFile of what may be a link, or may not be there; its errors are os's.
func readLink(path string, limit int) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	content, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(content) > limit {
		return nil, tooLong(path, limit)
	}
	return content, err
}

func tooLong(path string, limit int) error {
	return fmt.Errorf("%s has more than %d bytes", path, limit)
}

// openLink opens what a link leads to, within its directory.
func openLink(path string) (*os.File, error) {
	// The dot makes the kernel refuse what is no directory; it would wait for the writer of a FIFO.
	dir, err := os.OpenRoot(filepath.Dir(path) + "/.")
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // nothing was written
	return dir.OpenFile(filepath.Base(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

var errIrregular = errors.New("it is not a regular file")

// Regular returns an error if f is no regular file.
func Regular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errIrregular
	}
	return err
}

// Make makes a file with exactly that mode, in the place of whatever has that name. If it fails there is
// none.
func Make(path string, content []byte, mode os.FileMode) error {
	f, err := create(path, mode)
	if errors.Is(err, fs.ErrExist) {
		if err := Remove(path); err != nil {
			return err
		}
		f, err = create(path, mode)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask is
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// create opens a file that was not there. os.OpenFile would ask Go's poller whether it has use for it, in
// four more calls of the kernel.
func create(path string, mode os.FileMode) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	for {
		fd, err := unix.Open(path, flags, uint32(mode.Perm()))
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &fs.PathError{Op: "create", Path: path, Err: err}
		}
	}
}

// Replace is Make in one step: a reader, and who comes after a crash, finds the old file or the new one,
// never a part. Nothing is synced to disk: a bundle is on a tmpfs as a rule, and a crash of the machine
// ends the container anyway.
func Replace(path string, content []byte, mode os.FileMode) error {
	next := path + ".tmp"
	if err := Make(next, content, mode); err != nil {
		return err
	}
	// os.Rename would ask first whether the file to be replaced is a directory.
	if err := unix.Rename(next, path); err != nil {
		return &os.LinkError{Op: "rename", Old: next, New: path, Err: err}
	}
	return nil
}

// Remove removes a file or an empty directory, if it is there.
func Remove(path string) error {
	// Mostly there is nothing, which os.Remove asks the kernel twice.
	if err := unix.Unlink(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Package bundle opens and makes the files of a container's bundle.
//
// What is in a bundle may have been put there by somebody else: a link to a file elsewhere, a FIFO that
// nobody reads. So the package follows no link out of the directory of a file, waits for nobody, and
// what it makes is a file that was not there before (open(2), O_EXCL). Of what the files hold it knows
// the pid of the init process, and nothing else.
package bundle

import (
	"errors"
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

// Regular returns an error if f is no regular file.
func Regular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
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

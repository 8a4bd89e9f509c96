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
	fd, err := create(path, mode)
	if errors.Is(err, fs.ErrExist) {
		if err := Remove(path); err != nil {
			return err
		}
		fd, err = create(path, mode)
	}
	if err != nil {
		return err
	}
	err = write(fd, content)
	if err == nil {
		err = unix.Fchmod(fd, uint32(mode.Perm())) // whatever the umask is
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return errors.Join(&fs.PathError{Op: "write", Path: path, Err: err}, os.Remove(path))
	}
	return nil
}

// create opens a file that was not there. os.OpenFile would ask Go's poller whether it has use for it, in
// five more calls of the kernel.
func create(path string, mode os.FileMode) (fd int, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	err = retry(func() (err error) {
		fd, err = unix.Open(path, flags, uint32(mode.Perm()))
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return fd, nil
}

// write writes all of content.
func write(fd int, content []byte) error {
	for len(content) > 0 {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Write(fd, content)
			return err
		})
		if err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// retry repeats a call that a signal has interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR { //nolint:errorlint // an errno as the kernel gave it
			return err
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

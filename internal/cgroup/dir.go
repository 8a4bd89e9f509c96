package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dir is the open directory of a group. Everything is looked up from it, so that all files are
// of the same group even if it is removed and made anew meanwhile.
//
// It belongs to one call: it is neither shared nor kept. Files are opened without the os
// package, which would put each of them on the poller, since cgroupfs supports poll(2).
type dir struct {
	fd  int
	buf []byte // what read returned last
}

// open opens the directory, if it is still the one that was found; else the error is ErrGone.
func (p *place) open() (*dir, error) {
	fd, err := openat(unix.AT_FDCWD, p.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if vanished(err) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.dir, err)
	}
	d := &dir{fd: fd}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		d.close()
		return nil, fmt.Errorf("stat %s: %w", p.dir, err)
	}
	if st.Dev != p.dev || st.Ino != p.ino {
		d.close()
		return nil, ErrGone
	}
	return d, nil
}

func (d *dir) close() { _ = unix.Close(d.fd) } // nothing was written through it

// alive tells whether the group still exists: in a removed directory nothing can be looked up.
func (d *dir) alive() bool {
	return unix.Faccessat(d.fd, "cgroup.procs", unix.F_OK, 0) == nil
}

// read returns the content of a file, given by its name or path from d. It is valid until the
// next read.
func (d *dir) read(name string) ([]byte, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if d.buf == nil {
		d.buf = make([]byte, 4096) // memory.stat, the longest of the usual files, has about 1500
	}
	for n := 0; ; {
		if n == len(d.buf) {
			d.buf = append(d.buf, make([]byte, n)...)
		}
		m, err := unix.Read(fd, d.buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return d.buf[:n], err
		}
		n += m
	}
}

// readOnce fills buf from a file that is short and read in one piece, as those with one number are.
func (d *dir) readOnce(name string, buf []byte) ([]byte, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Read(fd, buf)
		if !errors.Is(err, unix.EINTR) {
			return buf[:max(n, 0)], err
		}
	}
}

// write writes a value in one piece, as cgroupfs wants it.
func (d *dir) write(name, value string) error {
	fd, err := openat(d.fd, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // the outcome is that of write(2)
	for {
		if _, err = unix.Write(fd, []byte(value)); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// names lists the entries of a directory below d ("." for d itself): those that are groups
// themselves, or the files.
func (d *dir) names(path string, groups bool) ([]string, error) {
	fd, err := openat(d.fd, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() == groups {
			all = append(all, e.Name())
		}
	}
	return all, nil
}

// walk calls visit for d itself (".") and each group below it, parents first. Groups that vanish
// meanwhile are passed over. It holds no more than one descriptor at a time, since a container may
// nest its groups as deeply as it likes; those that no path reaches any more (PATH_MAX) are
// passed over, too.
func (d *dir) walk(visit func(path string) error) error {
	passable := func(err error) bool { return vanished(err) || errors.Is(err, unix.ENAMETOOLONG) }
	for todo := []string{"."}; len(todo) > 0; {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := visit(path); err != nil && (path == "." || !passable(err)) {
			return err
		}
		children, err := d.names(path, true)
		if err != nil && !passable(err) {
			return fmt.Errorf("list groups in %s: %w", path, err)
		}
		for _, name := range children {
			todo = append(todo, filepath.Join(path, name))
		}
	}
	return nil
}

// openat opens a file that a program started meanwhile does not inherit.
func openat(at int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

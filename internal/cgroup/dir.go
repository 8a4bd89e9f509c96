package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// usualSize is enough for most files: memory.stat, the longest of the usual ones, has about 1500
// bytes.
const usualSize = 4096

// dir is the open directory of a group. Everything is looked up from it, so that all files are
// of the same group even if it is removed and made anew meanwhile.
//
// It belongs to one call at a time. Files are opened without the os package, which would put each
// of them on the poller, since cgroupfs supports poll(2).
type dir struct {
	fd   int
	buf  []byte         // what read or content returned last
	kept map[string]int // files that content leaves open for the next call, by name; nil: none
	done []int          // files that content is done with; whoever closes them need not be waited for
	sure bool           // the last content was read, so that the group was there
}

// open opens the directory, if it is still the one that was found; else the error is ErrGone.
func (p *place) open() (*dir, error) {
	fd, err := openat(unix.AT_FDCWD, p.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
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

// close closes the directory and the files that were kept.
func (d *dir) close() {
	for _, fd := range d.kept {
		_ = unix.Close(fd) // nothing was written through it, nor through the directory
	}
	for _, fd := range d.done {
		_ = unix.Close(fd)
	}
	_ = unix.Close(d.fd)
}

// alive tells whether the group still exists: in a removed directory nothing can be looked up, and
// its files that are open cannot be read.
func (d *dir) alive() bool {
	return d.sure || unix.Faccessat(d.fd, "cgroup.procs", unix.F_OK, 0) == nil
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
		d.buf = make([]byte, usualSize)
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

// content returns what is in a file that the kernel writes in one piece, as all are but the lists of
// processes; nothing if it cannot be read. It is valid until the next read.
func (d *dir) content(name string) []byte {
	fd, open := d.kept[name]
	if !open {
		var err error
		if fd, err = openat(d.fd, name, unix.O_RDONLY); err != nil {
			d.sure = false
			return nil
		}
	}
	n, err := d.pread(fd)
	d.sure = err == nil
	switch {
	case err == nil && open:
	case err == nil && d.kept != nil && fd < keepBelow:
		d.kept[name] = fd
	case fd < keepBelow:
		delete(d.kept, name)
		d.done = append(d.done, fd)
	default:
		delete(d.kept, name)
		_ = unix.Close(fd)
	}
	return bytes.TrimSpace(d.buf[:n])
}

// pread fills buf from the beginning of a file and returns how much there is.
func (d *dir) pread(fd int) (int, error) {
	if d.buf == nil {
		d.buf = make([]byte, usualSize)
	}
	for {
		n, err := unix.Pread(fd, d.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n < len(d.buf):
			return n, nil
		default: // there may be more
			d.buf = make([]byte, 2*len(d.buf))
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

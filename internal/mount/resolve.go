package mount

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks one path may lead through, as in the kernel (path_resolution(7)).
const maxLinks = 40

// walk resolves a path as a process would whose root directory is the first of dirs. openat2(2)
// with RESOLVE_IN_ROOT does the same for what exists, on Linux 5.6; this works on any kernel that
// containerd runs on, and creates what is missing on the way.
//
// Each step opens one name without following it, and ".." goes back to a directory that is still
// open. So nobody who renames directories meanwhile can lead it out.
type walk struct {
	dirs  []*os.File // from the root to where we are; never empty
	rest  []string   // names still to go
	links int
	mkdir bool
}

// openInside opens path inside root with O_PATH: what is mounted there, or else the file itself.
// With mkdir, missing directories are created. The result and root belong to the caller.
func openInside(root *os.File, path string, mkdir bool) (*os.File, error) {
	w := walk{dirs: []*os.File{root}, rest: strings.Split(path, "/"), mkdir: mkdir}
	defer func() { w.back(0) }()
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if err := w.step(name); err != nil {
			return nil, fmt.Errorf("open %s inside %s: %w", path, root.Name(), err)
		}
	}
	if here := len(w.dirs) - 1; here > 0 {
		f := w.dirs[here]
		w.dirs = w.dirs[:here] // it is the caller's now
		return f, nil
	}
	return reopen(root)
}

func (w *walk) step(name string) error {
	switch name {
	case "", ".":
		return nil
	case "..":
		w.back(len(w.dirs) - 2)
		return nil
	}
	f, err := w.open(name)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return closing(f, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		w.dirs = append(w.dirs, f)
		return nil
	}
	return closing(f, w.follow(f))
}

// open opens name in the directory where we are.
func (w *walk) open(name string) (*os.File, error) {
	dir := int(w.dirs[len(w.dirs)-1].Fd())
	f, err := openPath(dir, name, unix.O_NOFOLLOW)
	if err != unix.ENOENT || !w.mkdir { //nolint:errorlint // an errno as the kernel gave it
		return f, err
	}
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && err != unix.EEXIST { //nolint:errorlint // as above
		return nil, err
	}
	return openPath(dir, name, unix.O_NOFOLLOW)
}

// follow goes on to where the symlink leads that link was opened for.
func (w *walk) follow(link *os.File) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(link.Fd()), "", buf)
	if err != nil {
		return err
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		w.back(0)
	}
	w.rest = append(strings.Split(target, "/"), w.rest...)
	return nil
}

// back returns to the directory with that index, or to the root if it is negative.
func (w *walk) back(index int) {
	index = max(index, 0)
	for _, f := range w.dirs[index+1:] {
		f.Close() //nolint:errcheck // nothing was written
	}
	w.dirs = w.dirs[:index+1]
}

// openPath opens name relative to the directory dir as a mere location, which needs no permission
// on the file and has no effect on a device or FIFO. The error is a bare errno.
func openPath(dir int, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if err == unix.EINTR { //nolint:errorlint // an errno as the kernel gave it
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// reopen returns a second descriptor of the same place.
func reopen(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// closing closes f on the way out and returns err.
func closing(f *os.File, err error) error {
	f.Close() //nolint:errcheck // nothing was written
	return err
}

// procPath names an open file in a way that system calls follow to exactly this file.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// realPath returns the absolute path of an open file, free of symlinks.
func realPath(f *os.File) (string, error) { return os.Readlink(procPath(f)) }

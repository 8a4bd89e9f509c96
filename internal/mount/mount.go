package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one layer or part of a rootfs, in containerd's terms.
type Mount struct {
	Type    string   // the filesystem; "fuse.X" and "fuse3.X" are mounted by the program X
	Source  string   // device, directory, image file, or whatever the filesystem makes of it
	Target  string   // directory inside the rootfs; empty: the rootfs itself
	Options []string // one option each, as in fstab(5)
}

// All mounts one after the other onto root, an existing directory, and no link to one: nobody can
// have us mount, and later unmount, elsewhere. Targets are resolved inside root; what they lack of directories is created, once something has been mounted on root itself.
// Before that, a directory would be left behind in root when all is unmounted (contract T60).
//
// If one fails, those before it are undone in reverse order, and the error says which one failed
// and what could not be undone, if anything. Options that make no sense have the kind
// errdefs.ErrInvalidArgument.
//
// A bind mount keeps nosuid, nodev, noexec and ro of its source unless an option says otherwise;
// "ro" with "rbind" concerns the topmost mount only. A call may take as long as the filesystem
// or its FUSE program takes, the latter at most a minute.
func All(mounts []Mount, root string) error {
	s := stack{}
	for _, m := range mounts {
		err := s.mountOn(root, m)
		if err == nil {
			continue
		}
		err = m.explain(root, err)
		if left := s.undo(); left != nil {
			return fmt.Errorf("%w; what had been mounted before it stays: %w", err, left)
		}
		return err
	}
	return nil
}

// stack is a rootfs under construction.
type stack struct {
	root  string   // absolute, free of symlinks
	paths []string // where we have mounted something, in order
}

func (s *stack) mountOn(root string, m Mount) error {
	if s.root == "" {
		f, err := openPath(unix.AT_FDCWD, filepath.Clean(root), unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			return fmt.Errorf("open the rootfs: %w", err)
		}
		defer f.Close() //nolint:errcheck // nothing was written
		if s.root, err = realPath(f); err != nil {
			return err
		}
	}
	o, err := parseOptions(m.Options)
	if err != nil {
		return err
	}
	if o.loop {
		dev, err := attachLoop(m.Source, o.flags&unix.MS_RDONLY != 0, o.directIO)
		if err != nil {
			return err
		}
		// Once it is mounted the device lives as long as the mount, otherwise it is freed here.
		defer dev.Close() //nolint:errcheck // nothing was written
		m.Source = dev.Name()
	}
	return s.mount(m, &o)
}

// mount does everything that m needs, in the order in which the kernel allows it.
func (s *stack) mount(m Mount, o *options) error {
	at, err := s.place(m.Target)
	if err != nil {
		return err
	}
	defer at.Close() //nolint:errcheck // nothing was written
	switch {
	case isFUSE(m.Type):
		err = s.mountFUSE(m, o, at)
	case m.Type == "overlay" && o.mapped():
		return s.mountMappedOverlay(m, o, at)
	case o.flags&unix.MS_BIND != 0:
		err = s.bind(m, o, at)
	default:
		err = s.mountPlain(m, o, at)
	}
	if err == nil && o.mapped() {
		err = s.remap(m.Target, o)
	}
	if err == nil && o.propagation != 0 {
		err = s.propagate(m.Target, o.propagation)
	}
	return err
}

// place opens the place inside the rootfs that target names: the topmost mount there, if any.
// So after something has been mounted there, the place must be opened again to reach it.
func (s *stack) place(target string) (*os.File, error) {
	root, err := openPath(unix.AT_FDCWD, s.root, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.root, err)
	}
	defer root.Close() //nolint:errcheck // nothing was written
	at, err := openInside(root, target, slices.Contains(s.paths, s.root))
	if err != nil {
		return nil, err
	}
	// A place too deep for a path could be mounted on, but never be unmounted.
	if _, err := realPath(at); err != nil {
		return nil, closing(at, err)
	}
	return at, nil
}

// push remembers that something has been mounted at the place, so that it can be undone.
func (s *stack) push(at *os.File) error {
	path, err := realPath(at)
	if err != nil {
		return err
	}
	s.paths = append(s.paths, path)
	return nil
}

func (s *stack) mountPlain(m Mount, o *options, at *os.File) error {
	data := strings.Join(o.data, ",")
	mount := func(data string) error {
		if err := checkData(data); err != nil {
			return err
		}
		return unix.Mount(m.Source, procPath(at), m.Type, o.flags, data)
	}
	var err error
	if l, ok := relativeLayers(o.data); ok && m.Type == "overlay" && checkData(data) != nil {
		err = l.mount(mount)
	} else {
		err = mount(data)
	}
	if err != nil || o.flags&unix.MS_REMOUNT != 0 {
		return err
	}
	return s.push(at)
}

// checkData tells whether mount(2) takes data: it reads one page, terminated by a zero byte.
func checkData(data string) error {
	if limit := os.Getpagesize() - 1; len(data) > limit {
		return fmt.Errorf("its options take %d bytes and the kernel reads at most %d: %w", len(data), limit, errTooLong)
	}
	return nil
}

var errTooLong = errors.New("options too long")

func (s *stack) propagate(target string, flags uintptr) error {
	top, err := s.place(target)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // nothing was written
	if err := unix.Mount("", procPath(top), "", flags, ""); err != nil {
		return fmt.Errorf("change its propagation: %w", err)
	}
	return nil
}

// undo unmounts what we have mounted, and what came along with it: a recursive bind mount has
// mounts below it that we never named. The error is that of the outermost that stays.
func (s *stack) undo() error {
	points, err := pointsBelow(s.root)
	if err != nil {
		return err
	}
	ours := topmost(points, s.paths)
	if len(ours) == 0 {
		return nil
	}
	list := func() ([]point, error) {
		points, err := pointsBelow(s.root)
		return trees(points, ours), err
	}
	return unmountEach(list, func() bool { return pause(nil) })
}

// explain puts err into words for the person who has to do something about it.
func (m Mount) explain(root string, err error) error {
	what := fmt.Sprintf("cannot mount %q of type %q on %s", m.Source, m.Type, filepath.Join(root, m.Target))
	advice := advise(err)
	// Further up, ENOENT would look like an answer to the question whether the task exists.
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %v%s", what, err, advice) //nolint:errorlint // on purpose, see above
	}
	return fmt.Errorf("%s: %w%s", what, err, advice)
}

// advice says what to do about an errno that mount(2) is known for.
var advice = map[error]string{
	errTooLong:   "use fewer layers, or a shorter directory for the snapshotter",
	unix.EBUSY:   "see whether another mount uses its source, upperdir or workdir",
	unix.EINVAL:  "the kernel log (dmesg) may say what is wrong",
	unix.ENODEV:  "load the module of this filesystem, or see /proc/filesystems for its right name",
	unix.ENOENT:  "see that its source and all directories in its options exist",
	unix.ENOSYS:  "it needs a newer kernel (mapped ids: Linux 5.12, for overlays 5.19)",
	unix.ENOTBLK: "its source must be a block device; add the option loop for an image file",
	unix.EPERM:   "the shim must have CAP_SYS_ADMIN in the user namespace it runs in",
}

func advise(err error) string {
	for known, text := range advice {
		if errors.Is(err, known) {
			return "; " + text
		}
	}
	return ""
}

package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// remap replaces the mount at target by a copy of it that shows mapped owners. The kernel maps
// only what is not yet visible anywhere, hence the copy; one left below it would do no harm, but
// would have to be unmounted for nothing.
func (s *stack) remap(target string, o *options) error {
	top, err := s.place(target)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // nothing was written
	tree, err := cloneMapped(top, o, 0)
	if err != nil {
		return err
	}
	defer tree.Close() //nolint:errcheck // nothing was written
	return s.replace(target, tree, 1)
}

// mountMappedOverlay mounts an overlay whose layers show mapped owners. The overlay keeps private
// copies of its layers, and layers are accepted only from a mount that can be seen; so a mapped
// copy of the layers' common parent stands where the overlay will be, for as long as it takes.
// If we are killed meanwhile, Unmount finds it there.
func (s *stack) mountMappedOverlay(m Mount, o *options, at *os.File) error {
	l, ok := relativeLayers(o.data)
	if !ok {
		return fmt.Errorf("ids can be mapped only if all lowerdirs are absolute and have a parent directory in common other than /: %w", errdefs.ErrInvalidArgument)
	}
	parent, err := openPath(unix.AT_FDCWD, l.base, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open %s: %w", l.base, err)
	}
	defer parent.Close() //nolint:errcheck // nothing was written
	lower, err := cloneMapped(parent, o, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer lower.Close() //nolint:errcheck // nothing was written
	if err := s.attach(lower, at); err != nil {
		return err
	}
	if err := s.overlayOn(m, o, l, lower); err != nil {
		return err
	}
	top, err := s.place(m.Target)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // nothing was written
	tree, err := cloneTree(top, 0)
	if err != nil {
		return err
	}
	defer tree.Close() //nolint:errcheck // nothing was written
	if err := s.replace(m.Target, tree, 2); err != nil {
		return err
	}
	if o.propagation != 0 {
		return s.propagate(m.Target, o.propagation)
	}
	return nil
}

// overlayOn mounts the overlay with layers relative to lower, on the same place.
func (s *stack) overlayOn(m Mount, o *options, l layers, lower *os.File) error {
	at, err := s.place(m.Target)
	if err != nil {
		return err
	}
	defer at.Close() //nolint:errcheck // nothing was written
	data := strings.Join(l.data, ",")
	if err := checkData(data); err != nil {
		return err
	}
	err = inDirectory(lower, func() error {
		return unix.Mount(m.Source, procPath(at), m.Type, o.flags, data)
	})
	if err != nil {
		return err
	}
	return s.push(at)
}

// replace takes away the n topmost mounts at target and attaches tree there instead.
func (s *stack) replace(target string, tree *os.File, n int) error {
	for range n {
		last := len(s.paths) - 1
		// Detached, not unmounted: it may have mounts below it that came with it, and we hold
		// descriptors of it. Nobody else has seen it, so nothing stays behind that matters.
		if err := unix.Unmount(s.paths[last], unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach the unmapped mount: %w", err)
		}
		s.paths = s.paths[:last]
	}
	at, err := s.place(target)
	if err != nil {
		return err
	}
	defer at.Close() //nolint:errcheck // nothing was written
	return s.attach(tree, at)
}

// cloneMapped returns a detached copy of the mounts at and below f that shows mapped owners.
func cloneMapped(f *os.File, o *options, attributes uint64) (*os.File, error) {
	ns, err := reaper.UserNamespace(o.uids, o.gids)
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("the kernel does not take these maps of ids; do two ranges overlap? %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // nothing was written
	tree, err := cloneTree(f, unix.AT_RECURSIVE)
	if err != nil {
		return nil, err
	}
	attr := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | attributes,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(ns.Fd()),
	}
	err = unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
	if err == unix.EINVAL { //nolint:errorlint // an errno as the kernel gave it
		// Without the errno, which would be taken for a wrong option.
		err = errors.New("its filesystem, or one mounted below it, cannot do that on this kernel")
	}
	if err != nil {
		return nil, closing(tree, fmt.Errorf("map the ids of %s: %w", f.Name(), err))
	}
	return tree, nil
}

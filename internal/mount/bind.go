package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// bind mounts a directory, or a file, a second time.
//
// If nothing is said about propagation, the copy is a slave of the source: what is mounted on the
// source later appears in the copy, but not the other way round. Otherwise, wherever the source
// is shared (as all is where systemd runs), a mount inside the rootfs would also appear in its
// source, and unmounting a recursive bind mount of, say, /srv would unmount everything inside
// /srv itself (mount_namespaces(7)).
func (s *stack) bind(m Mount, o *options, at *os.File) error {
	again := o.flags&unix.MS_REMOUNT != 0
	if !again {
		err := s.bindTree(m, o, at)
		if errors.Is(err, unix.ENOSYS) {
			err = s.bindOld(m, o, at)
		}
		if err != nil {
			return err
		}
	}
	if again || o.flags&bindAttributes != 0 {
		return s.restrict(m.Target, o)
	}
	return nil
}

// bindTree makes a copy of the source and attaches it when it is a slave already. Where the rootfs
// itself is on a shared mount, the copies that this one gets in other namespaces are its peers
// then, and go when it goes.
func (s *stack) bindTree(m Mount, o *options, at *os.File) error {
	source, err := openPath(unix.AT_FDCWD, m.Source, 0)
	if err != nil {
		return fmt.Errorf("open the source: %w", err)
	}
	defer source.Close() //nolint:errcheck // nothing was written
	recursive := uint(0)
	if o.flags&unix.MS_REC != 0 {
		recursive = unix.AT_RECURSIVE
	}
	tree, err := cloneTree(source, recursive)
	if err != nil {
		return err
	}
	defer tree.Close() //nolint:errcheck // nothing was written
	// What is still to be mapped is only on its way: it will be detached (remap).
	if o.propagation == 0 || o.mapped() {
		slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
		if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|recursive, &slave); err != nil {
			return fmt.Errorf("make it a slave of its source: %w", err)
		}
	}
	return s.attach(tree, at)
}

// bindOld is bindTree for kernels before 5.12. Its copies in other namespaces stay there until
// they are unmounted there: they belong to the source and not to this mount.
func (s *stack) bindOld(m Mount, o *options, at *os.File) error {
	flags := o.flags & (unix.MS_BIND | unix.MS_REC)
	if err := unix.Mount(m.Source, procPath(at), "", flags, ""); err != nil {
		return err
	}
	if err := s.push(at); err != nil {
		return err
	}
	if o.propagation != 0 {
		return nil
	}
	return s.propagate(m.Target, unix.MS_SLAVE|flags&unix.MS_REC)
}

// attach makes a detached mount visible at a place.
func (s *stack) attach(tree, at *os.File) error {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(int(tree.Fd()), "", int(at.Fd()), "", flags); err != nil {
		return fmt.Errorf("attach the copy of %s: %w", tree.Name(), err)
	}
	return s.push(at)
}

// cloneTree returns a detached copy of the mount at f, from f on; with AT_RECURSIVE also of those
// below it.
func cloneTree(f *os.File, flags uint) (*os.File, error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	fd, err := unix.OpenTree(int(f.Fd()), "", flags)
	if err != nil {
		return nil, fmt.Errorf("copy the mount of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// bindAttributes are the flags that a bind mount has for itself, beside its filesystem's.
const bindAttributes = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC |
	unix.MS_NODIRATIME | atime

// restrict gives the bind mount at target the flags of o: the kernel ignores them in the call
// that makes it (mount(2)).
func (s *stack) restrict(target string, o *options) error {
	top, err := s.place(target)
	if err != nil {
		return err
	}
	defer top.Close() //nolint:errcheck // nothing was written
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(top.Fd()), &st); err != nil {
		return fmt.Errorf("read the flags of the source: %w", err)
	}
	// A remount drops what it does not name. In a user namespace some flags are locked and must
	// be named (mount_namespaces(7)); elsewhere a read-only view should not become a place for
	// setuid programs because nobody asked for that. The kernel itself keeps the atime flags.
	kept := uintptr(st.Flags) & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	flags := kept&^o.cleared | o.flags&bindAttributes
	return unix.Mount("", procPath(top), "", unix.MS_REMOUNT|unix.MS_BIND|flags, "")
}

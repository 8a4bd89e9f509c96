package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Right after a container has ended the kernel may still be taking its processes apart, and the
// mount is busy until it has. How long that may take is containerd's figure (contract T61).
const (
	busyTries = 50
	busyPause = 50 * time.Millisecond
)

// Unmount unmounts everything at root and below it, the newest first. If root does not exist or
// nothing is mounted there, that is success, so it may be repeated. So it is if root is a link, for
// All mounts on none: whatever is mounted where it leads is somebody else's.
//
// What is busy is tried again until it yields, 50 × 50 ms have passed without any progress, or
// ctx ends. Nothing is detached with pieces still in use: that would only hide who uses it. The
// error is that of the outermost mount that stays; it names the mount and, if it is busy,
// processes that seem to use it, and wraps the errno.
//
// ctx does not interrupt the kernel while it unmounts: writing back a filesystem may take long.
func Unmount(ctx context.Context, root string) error {
	path, err := resolve(root)
	if err != nil || path == "" {
		return err
	}
	list := func() ([]point, error) { return pointsBelow(path) }
	return unmountEach(list, func() bool { return pause(ctx.Done()) })
}

// unmountEach unmounts what list returns until that is nothing. Between tries it calls wait,
// which tells whether there should be another.
func unmountEach(list func() ([]point, error), wait func() bool) error {
	for idle := 0; ; idle++ {
		points, err := list()
		if err != nil {
			return fmt.Errorf("cannot unmount: %w", err)
		}
		progress, left := unmountOnce(points)
		if progress {
			idle = -1
			continue
		}
		if left == nil {
			return nil
		}
		if idle >= busyTries || !left.mayPass() || !wait() {
			return left.explain()
		}
	}
}

// resolve returns the absolute path of root, free of symlinks, or "" if it does not exist or is a
// link. It asks nothing of what is mounted there: that may be a FUSE whose program is dead.
func resolve(root string) (string, error) {
	f, err := openPath(unix.AT_FDCWD, filepath.Clean(root), unix.O_NOFOLLOW)
	if err == unix.ENOENT || err == unix.ENOTDIR { //nolint:errorlint // errnos as the kernel gave them
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot unmount %s: %w", root, err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if isLink(f) {
		return "", nil
	}
	path, err := realPath(f)
	if err != nil {
		return "", fmt.Errorf("cannot unmount %s: %w", root, err)
	}
	return path, nil
}

// isLink tells whether f, opened with O_PATH, is a link itself. Of what else it may be nothing is
// asked: only a link can be read as one.
func isLink(f *os.File) bool {
	var target [1]byte
	_, err := unix.Readlinkat(int(f.Fd()), "", target[:])
	return err == nil
}

// unmountOnce tries each point once, the last one first. It tells whether any was unmounted, and
// returns the outermost that was not.
//
// The order of the kernel's table is what makes "last first" right: what covers a mount, or is
// mounted inside it, came later. Where that fails, the next round finds it uncovered.
func unmountOnce(points []point) (progress bool, left *stuck) {
	for _, p := range slices.Backward(points) {
		err := p.unmount()
		switch {
		case err == nil:
			progress = true
		case errors.Is(err, unix.ENOENT):
			// Covered by another mount, and no longer reachable for anybody.
		default:
			left = &stuck{point: p, err: err}
		}
	}
	return progress, left
}

// unmount unmounts the topmost mount at the point, or says why it cannot.
func (p point) unmount() error {
	err := unix.Unmount(p.path, unix.UMOUNT_NOFOLLOW)
	if err == unix.EPERM && strings.HasPrefix(p.fstype, "fuse") { //nolint:errorlint // an errno as the kernel gave it
		return unmountFUSE(p.path)
	}
	return err
}

// pause waits before the next try and tells whether there should be one.
func pause(done <-chan struct{}) bool {
	timer := time.NewTimer(busyPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

// stuck is a mount that could not be unmounted.
type stuck struct {
	point
	err error
}

// mayPass tells whether it is worth another try. EINVAL is what remains if somebody else has
// unmounted it since we looked: then it will not be in the table next time.
func (s *stuck) mayPass() bool {
	return errors.Is(s.err, unix.EBUSY) || errors.Is(s.err, unix.EINVAL)
}

func (s *stuck) explain() error {
	switch {
	case errors.Is(s.err, unix.EBUSY):
		who := holders(s.path)
		if len(who) == 0 {
			return fmt.Errorf("cannot unmount %s: %w, though no process seems to use it; see whether another mount does (grep it in /proc/*/mountinfo)", s.path, s.err)
		}
		return fmt.Errorf("cannot unmount %s: %w, used by %s; end what uses it and try again", s.path, s.err, strings.Join(who, ", "))
	case errors.Is(s.err, unix.EINVAL):
		return fmt.Errorf("cannot unmount %s: %w; was it mounted in a parent user namespace? then unmount it there", s.path, s.err)
	case errors.Is(s.err, os.ErrNotExist):
		// Further up, this would look like an answer to the question whether the task exists.
		return fmt.Errorf("cannot unmount %s: %v", s.path, s.err) //nolint:errorlint // on purpose
	}
	return fmt.Errorf("cannot unmount %s: %w", s.path, s.err)
}

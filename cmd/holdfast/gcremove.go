package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

const (
	// deleteActionLimit is longer than managers wait: nobody else is waiting here.
	deleteActionLimit = 15 * time.Second
	lockPause         = 5 * time.Millisecond
	lockLimit         = 3 * time.Second
	// managerState is the directory of a manager that has one for each namespace.
	managerState = "io.containerd.runtime.v2.task"
)

// removeSocket removes a socket on which nobody listens. Our shims take the same lock while they bind
// and listen; of others the age of the socket says that they are not about to.
func removeSocket(path string) error {
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	if reason := listens(path); reason != "" {
		return fmt.Errorf("cannot remove %s: because %s", path, reason)
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return nil
}

// lockDirectory takes the lock of a directory that shims take who make sockets in it.
func lockDirectory(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	unlock = func() { _ = unix.Close(fd) } // nothing was written
	for end := time.Now().Add(lockLimit); ; time.Sleep(lockPause) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			unlock()
			return nil, fmt.Errorf("cannot lock %s: %w; /proc/locks says who has it", dir, err)
		}
	}
}

// removeBundle lets the shim that a bundle names clean up, and removes the bundle as its manager would.
// The note tells what people should know although it is removed.
func (o gcOptions) removeBundle(ctx context.Context, l node.Leak) (note string, err error) {
	// Once more, since others were removed in between, which takes time.
	if reason := o.bundleNeeded(l); reason != "" {
		return "", fmt.Errorf("cannot remove %s: because %s", l.Path, reason)
	}
	note = "no shim is named in it, so the runtime was not asked to forget the container"
	if binary := node.ShimBinary(l.Path); binary != "" {
		limited, cancel := context.WithTimeout(ctx, deleteActionLimit)
		defer cancel()
		_, stderr, err := client.Delete(limited, client.StartConfig{
			Binary: binary, ID: l.ID, Namespace: l.Namespace, Bundle: l.Path,
		})
		if err != nil {
			return "", fmt.Errorf("cannot clean up with %s: %w", binary, err)
		}
		note = strings.TrimSpace(stderr)
	}
	mounts, err := node.Mounts(o.cfg, l.Path)
	switch {
	case err != nil:
		return "", err
	case len(mounts) > 0:
		return "", fmt.Errorf("cannot remove %s: because %s is still mounted; umount that: %s", l.Path, mounts[0], note)
	}
	return note, removeBundleDir(l)
}

// removeBundleDir removes the directories of a bundle in the order in which managers do, so that one
// that starts meanwhile never sees half of it.
func removeBundleDir(l node.Leak) error {
	work, err := os.Readlink(filepath.Join(l.Path, "work"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot find the work directory: %w", err)
	}
	hidden := filepath.Join(filepath.Dir(l.Path), "."+l.ID)
	if err := os.Rename(l.Path, hidden); err != nil {
		return fmt.Errorf("cannot remove the bundle: %w", err)
	}
	if err := os.RemoveAll(hidden); err != nil {
		return fmt.Errorf("cannot remove the bundle: %w", err)
	}
	// Only a directory that is called as managers call it: the link is just a name.
	if !filepath.IsAbs(work) || !strings.HasSuffix(filepath.Clean(work), filepath.Join("/", managerState, l.Namespace, l.ID)) {
		return nil
	}
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("cannot remove the work directory: %w", err)
	}
	return nil
}

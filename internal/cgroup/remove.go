package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// removePause is between two tries to remove a group whose last processes are dying.
const removePause = 5 * time.Millisecond

// Remove removes the groups that a runtime makes for a container, by the linux.cgroupsPath of its
// spec: for a runtime that was killed before it had noted them anywhere. Groups that are not there are
// no error, and what systemd has made ("slice:prefix:name") it removes itself.
//
// A group with processes or with groups below is never touched. Remove waits for the end of those that
// are dying, as long as ctx lasts; then the error names what is left.
func Remove(ctx context.Context, cgroupsPath string) error {
	if cgroupsPath == "" || strings.Contains(cgroupsPath, ":") {
		return nil
	}
	ours, err := memberships("self")
	if err != nil {
		return fmt.Errorf("look up our own cgroup: %w", err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look up cgroup mounts: %w", err)
	}
	var errs []error
	for _, dir := range named(cgroupsPath, ours, parseMounts(b)) {
		errs = append(errs, removeEmpty(ctx, dir))
	}
	return errors.Join(errs...)
}

// named returns where a path of a spec is in each hierarchy: an absolute one begins where the hierarchy
// is mounted, another one at our own group (runc's libcontainer). A path that means these themselves is
// nowhere.
func named(cgroupsPath string, ours []membership, mounts []mount) []string {
	var dirs []string
	for _, m := range ours {
		for _, mnt := range mounts {
			base, ok := mnt.point, mnt.carries(m)
			if ok && !filepath.IsAbs(cgroupsPath) {
				base, ok = mnt.directory(m.path)
			}
			if rest := filepath.Join("/", cgroupsPath); ok && rest != "/" {
				dirs = append(dirs, base+rest)
				break
			}
		}
	}
	return dirs
}

// removeEmpty removes one group, when it is empty.
func removeEmpty(ctx context.Context, dir string) error {
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		select {
		case <-time.After(removePause):
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
}

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// removePause is between two tries to remove groups whose last processes are dying.
	removePause = 5 * time.Millisecond
	// lookEvery is after how many tries it is looked again for other users of the groups.
	lookEvery = 20
)

// Remove removes the groups that a runtime makes for a container, by the linux.cgroupsPath of its
// spec: for a runtime that was killed before it had noted them anywhere. Groups that are not there are
// no error, and what systemd has made ("slice:prefix:name") it removes itself.
//
// A group with processes or with groups below is never touched. Remove waits for the end of those that
// are dying, as long as ctx lasts; then the error names what is left. Containers may share their groups:
// where one of the processes is in them that others returns, they are somebody's who lives, and Remove
// leaves them without a word.
func Remove(ctx context.Context, cgroupsPath string, others func() []int) error {
	dirs, err := dirsOf(cgroupsPath)
	if err != nil || len(dirs) == 0 {
		return err
	}
	for round := 0; ; round++ {
		over := ctx.Err() != nil
		members := membersOf(dirs)
		if (round%lookEvery == 0 || over) && containsAny(members, others) {
			return nil
		}
		busy, err := removeEmpty(dirs)
		if len(busy) == 0 || over {
			return errors.Join(err, describe(busy, members))
		}
		select {
		case <-time.After(removePause):
		case <-ctx.Done():
		}
	}
}

// Members returns the processes in the groups that Remove would remove, in ascending order.
func Members(cgroupsPath string) ([]int, error) {
	dirs, err := dirsOf(cgroupsPath)
	return slices.Sorted(maps.Keys(membersOf(dirs))), err
}

// dirsOf returns where the groups of a container are, or would be.
func dirsOf(cgroupsPath string) ([]string, error) {
	if cgroupsPath == "" || strings.Contains(cgroupsPath, ":") {
		return nil, nil
	}
	ours, err := memberships("self")
	if err != nil {
		return nil, fmt.Errorf("look up our own cgroup: %w", err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look up cgroup mounts: %w", err)
	}
	return named(cgroupsPath, ours, parseMounts(b)), nil
}

// containsAny tells whether one of the pids that others returns is among members.
func containsAny(members map[int]int, others func() []int) bool {
	if len(members) == 0 {
		return false
	}
	return slices.ContainsFunc(others(), func(pid int) bool {
		_, in := members[pid]
		return in
	})
}

// describe is the error for groups that cannot be removed, nil for none.
func describe(busy []string, members map[int]int) error {
	if len(busy) == 0 {
		return nil
	}
	err := fmt.Errorf("remove cgroup %s: %w", strings.Join(busy, ", "), unix.EBUSY)
	if len(members) > 0 {
		err = fmt.Errorf("%w; pids %v are in it", err, slices.Sorted(maps.Keys(members)))
	}
	return err
}

// membersOf returns the processes in the groups, and below them, that are there.
func membersOf(dirs []string) map[int]int {
	all := map[int]int{}
	for _, path := range dirs {
		fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			continue
		}
		d := &dir{fd: fd}
		members, _ := d.members() // what cannot be read cannot be removed either, which is told then
		maps.Copy(all, members)
		d.close()
	}
	return all
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

// removeEmpty removes those groups that are empty, and returns those that are not.
func removeEmpty(dirs []string) (busy []string, err error) {
	for _, dir := range dirs {
		switch e := unix.Rmdir(dir); {
		case e == nil, errors.Is(e, unix.ENOENT):
		case errors.Is(e, unix.EBUSY), errors.Is(e, unix.EINTR):
			busy = append(busy, dir)
		default:
			err = errors.Join(err, fmt.Errorf("remove cgroup %s: %w", dir, e))
		}
	}
	return busy, err
}

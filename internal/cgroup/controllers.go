package cgroup

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// EnableControllers makes every controller that the root of a version 2 hierarchy has count for
// the group, by enabling it in each group above. What is enabled already is left alone. Without
// it there would be statistics only for what the runtime happens to limit (contract 3.10).
// In version 1 there is nothing to do.
//
// A controller that one group refuses does not keep the others from being enabled; the error is
// the first one. Nothing depends on success.
func (g *Group) EnableControllers() error {
	if g == nil || !g.unified || g.v2 == nil || !g.v2.own {
		return nil
	}
	rest, err := filepath.Rel(g.v2.point, g.v2.dir)
	if err != nil || rest == "." {
		return nil // it is mounted there: what lies above cannot be reached
	}
	var first error
	dir := g.v2.point
	for _, name := range strings.Split(rest, "/") {
		if err := enableBelow(dir); err != nil && first == nil {
			first = err
		}
		dir = filepath.Join(dir, name)
	}
	return first
}

// enableBelow enables in a group all controllers that it has for the groups directly below it.
func enableBelow(path string) error {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("enable controllers below %s: %w", path, err)
	}
	d := &dir{fd: fd}
	defer d.close()
	has := strings.Fields(string(d.content("cgroup.controllers")))
	enabled := strings.Fields(string(d.content("cgroup.subtree_control")))
	missing := slices.DeleteFunc(has, func(name string) bool { return slices.Contains(enabled, name) })
	if len(missing) == 0 {
		return nil
	}
	if d.write("cgroup.subtree_control", "+"+strings.Join(missing, " +")) == nil {
		return nil
	}
	var first error
	for _, name := range missing { // one by one: the kernel takes all of a line or nothing
		if err := d.write("cgroup.subtree_control", "+"+name); err != nil && first == nil {
			first = fmt.Errorf("enable controller %s below %s: %w", name, path, err)
		}
	}
	return first
}

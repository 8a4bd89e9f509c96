package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Pids returns the processes of the group and of all groups below it, in ascending order. A
// process that has only some of its threads there (threaded groups, cgroups(7)) counts as well;
// one that has exited does not, even if it was not yet waited for.
//
// The list is not taken at one instant: what forks or moves meanwhile may be missing.
func (g *Group) Pids() ([]int, error) {
	p, err := g.home()
	if err != nil {
		return nil, err
	}
	d, err := p.open()
	if err != nil {
		return nil, err
	}
	defer d.close()
	members, err := d.members()
	if err != nil {
		return nil, fmt.Errorf("list processes in %s: %w", p.dir, err)
	}
	return slices.Sorted(maps.Keys(members)), nil
}

// members returns the processes in the group and below it; the value is a thread of the process
// that is really there, the process itself except in threaded groups.
func (d *dir) members() (map[int]int, error) {
	all := map[int]int{}
	threaded := false
	err := d.walk(func(path string) error {
		b, err := d.read(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, unix.EOPNOTSUPP) {
			// The file of the domain above lists the processes of a threaded group, too. We have seen
			// it, unless the domain is not below d; then d itself is threaded, and all below it.
			threaded = threaded || path == "."
			if !threaded {
				return nil
			}
			return d.threads(path, all)
		}
		for _, pid := range parsePids(b) {
			all[pid] = pid
		}
		return err
	})
	if vanished(err) {
		return nil, ErrGone
	}
	return all, err
}

// threads adds the processes whose threads are in a threaded group.
func (d *dir) threads(path string, all map[int]int) error {
	b, err := d.read(filepath.Join(path, "cgroup.threads"))
	for _, tid := range parsePids(b) {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
		if err != nil {
			continue // it has exited
		}
		if pid := parseStatus(status); pid != 0 {
			all[pid] = tid
		}
	}
	return err
}

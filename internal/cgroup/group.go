package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Group is the control group of a container, or rather its groups: one in each hierarchy of
// version 1, one in that of version 2.
//
// What it is never changes, and it is safe for concurrent use. A nil Group is valid: it has gone.
type Group struct {
	unified bool
	v1      []*place
	v2      *place // nil if there is no such hierarchy

	asked atomic.Pointer[time.Time] // when Stats was called last
	idle  atomic.Pointer[reader]    // for the next Stats; nil while one uses it
}

// place is where a group is in one hierarchy.
type place struct {
	membership
	point string // where the hierarchy is mounted
	dir   string // the directory of the group: point or below

	// dev and ino identify the directory: cgroupfs gives a number to one directory only, ever.
	// They are zero if it was not there when it was looked up.
	dev, ino uint64

	// own is false for the root of a hierarchy and for a group that this process was in.
	own bool
}

// Of returns the group that the process is in now. The caller makes sure that pid cannot be
// reused meanwhile.
//
// The error is ErrGone if there is no such process, and an errdefs.ErrNotFound too if no group
// of it can be seen from here. A process that has no group of its own, or that has exited (it
// shows as a member of the root in version 1), gives a Group with which nothing can be done.
func Of(pid int) (*Group, error) {
	theirs, err := memberships(fmt.Sprint(pid))
	if err != nil {
		return nil, fmt.Errorf("look up cgroup of process %d: %w", pid, err)
	}
	ours, err := memberships("self")
	if err != nil {
		return nil, fmt.Errorf("look up our own cgroup: %w", err)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look up cgroup mounts: %w", err)
	}
	g := groupOf(theirs, ours, parseMounts(b))
	if g.v1 == nil && g.v2 == nil {
		return nil, fmt.Errorf("cannot see a cgroup of process %d: no cgroup filesystem that shows it is"+
			" mounted here; mount one at /sys/fs/cgroup: %w", pid, ErrGone)
	}
	return g, nil
}

// memberships returns the groups of a process: a pid, or "self".
func memberships(process string) ([]membership, error) {
	b, err := os.ReadFile("/proc/" + process + "/cgroup")
	if vanished(err) || errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	return parseMemberships(b), nil
}

// groupOf finds the directories of a process's groups among the mounts.
func groupOf(theirs, ours []membership, mounts []mount) *Group {
	g := &Group{unified: isUnified(theirs)}
	for _, m := range theirs {
		p := find(m, mounts)
		if p == nil {
			continue
		}
		p.own = p.ino != 0 && m.path != "/" && !p.holds(ours)
		if m.unified {
			g.v2 = p
		} else {
			g.v1 = append(g.v1, p)
		}
	}
	return g
}

// isUnified tells whether memory and pids, the controllers that matter, are those of version 2.
// Other version 1 hierarchies may exist beside it, for instance for net_cls or for a name.
func isUnified(members []membership) bool {
	unified := false
	for _, m := range members {
		if slices.Contains(m.controllers, "memory") || slices.Contains(m.controllers, "pids") {
			return false
		}
		unified = unified || m.unified
	}
	return unified
}

// find returns the place of a group: the first directory that is really in cgroupfs (a mount may
// be hidden by a later one), else a candidate that marks it as gone, else nil.
func find(m membership, mounts []mount) *place {
	var lost *place
	for _, mnt := range mounts {
		dir, ok := mnt.directory(m.path)
		if !ok || !mnt.carries(m) {
			continue
		}
		p := &place{membership: m, point: mnt.point, dir: dir}
		if p.identify() {
			return p
		}
		if lost == nil {
			lost = p
		}
	}
	return lost
}

// identify fills in which directory it is.
func (p *place) identify() bool {
	var fs unix.Statfs_t
	if unix.Statfs(p.dir, &fs) != nil {
		return false
	}
	if fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return false
	}
	var st unix.Stat_t
	if unix.Stat(p.dir, &st) != nil {
		return false
	}
	p.dev, p.ino = st.Dev, st.Ino
	return true
}

// holds tells whether the memberships include the group or one below it.
func (p *place) holds(members []membership) bool {
	for _, m := range members {
		same := m.unified == p.unified && (m.unified || m.controllers[0] == p.controllers[0])
		if same && within(m.path, p.path) {
			return true
		}
	}
	return false
}

// Unified tells whether the memory and pids controllers are those of version 2.
func (g *Group) Unified() bool { return g != nil && g.unified }

// Memory returns the directory of the group that its memory is charged to: it has memory.events
// if unified, else memory.oom_control. It is not ok if the container has no memory controller of
// its own or the group has gone.
func (g *Group) Memory() (dir string, unified, ok bool) {
	if g == nil {
		return "", false, false
	}
	unified = g.unified
	p, file := g.v2, "memory.events"
	if !unified {
		p, file = g.byController("memory"), "memory.oom_control"
	}
	if p == nil || !p.own {
		return "", unified, false
	}
	d, err := p.open()
	if err != nil {
		return "", unified, false
	}
	defer d.close()
	return p.dir, unified, unix.Faccessat(d.fd, file, unix.F_OK, 0) == nil
}

// byController returns the place in the version 1 hierarchy that has the controller, or nil.
func (g *Group) byController(name string) *place {
	for _, p := range g.v1 {
		if slices.Contains(p.controllers, name) {
			return p
		}
	}
	return nil
}

// homes are the version 1 controllers by whose hierarchy the processes are listed and signalled,
// best first: the freezer can hold them still meanwhile. Runtimes put a container into a group of
// its own in all of them.
var homes = []string{"freezer", "pids", "devices", "memory", "cpu", "cpuacct", "blkio", "cpuset"}

// home returns the place where the processes are listed and signalled.
//
// In version 1 it takes more than that one group: if any other hierarchy has the processes in a
// group with others, the container was never given its own, and the one that looks like it is
// somebody else's, a memory group of a login session, say.
func (g *Group) home() (*place, error) {
	if g == nil {
		return nil, ErrGone
	}
	candidates := []*place{g.v2}
	if !g.unified {
		candidates = candidates[:0]
		for _, name := range homes {
			candidates = append(candidates, g.byController(name))
		}
	}
	var home *place
	gone := false
	for _, p := range candidates {
		switch {
		case p == nil:
		case p.ino == 0:
			gone = true
		case !p.own:
			return nil, ErrShared
		case home == nil:
			home = p
		}
	}
	switch {
	case home != nil:
		return home, nil
	case gone:
		return nil, ErrGone
	}
	return nil, ErrShared
}

package shim

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/internal/cgroup"
	"holdfast/internal/proc"
	"holdfast/runc"
)

// survivor is an init process that its shim has left, and its control group.
type survivor struct {
	proc.Process
	group *cgroup.Group
}

// prove returns the process pid, if it certainly is the container's: the process is alive, and in each
// hierarchy it is in the cgroup that the spec asks for. A pid file may be old and its pid somebody else's
// by now. It returns nil if there is no proof.
func (c container) prove(pid int) *survivor {
	if pid <= 0 {
		return nil
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(process) //nolint:errcheck // nothing was written
	who, ok := proc.Read(pid)
	spec, err := runc.ReadSpec(c.bundle)
	if err != nil || !ok {
		return nil
	}
	group, err := cgroup.Of(pid)
	if err != nil {
		return nil
	}
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !isInside(string(lines), cgroupName(spec.CgroupsPath, c.id)) {
		return nil
	}
	// All of this was said of one process only if it still lives: its pid was never free.
	if unix.PidfdSendSignal(process, 0, nil, 0) != nil {
		return nil
	}
	return &survivor{who, group}
}

// halfMade returns a process that a killed runtime was about to make a container, if there is certainly one:
// it is in the cgroup of the spec, and works in the root filesystem of the spec. It waits for a hook, which
// may hang. It returns nil if there is none.
func (c container) halfMade() *survivor {
	spec, err := runc.ReadSpec(c.bundle)
	if err != nil {
		return nil
	}
	root := spec.Root
	if !filepath.IsAbs(root) {
		root = filepath.Join(c.bundle, root)
	}
	pids, err := cgroup.Members(spec.CgroupsPath)
	if err != nil || spec.Root == "" || filepath.Clean(root) == "/" {
		return nil
	}
	for _, pid := range pids {
		at, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil || at != filepath.Clean(root) {
			continue
		}
		if found := c.prove(pid); found != nil {
			return found
		}
	}
	return nil
}

// abandoned names what a killed runtime has left of hooks that run outside of the container. They are not
// killed: a hook may be in any group, and that it works in the bundle is no proof of what it is.
func (c container) abandoned() error {
	left := proc.Abandoned(c.bundle)
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("cannot end what works in the bundle of %s without its parent: because it may be no hook of the container: %s; end it if it is",
		c.id, proc.Describe(left))
}

// cgroupName returns the tail of the path of a container's cgroup in each hierarchy. The spec has
// either a path or, for systemd, slice:prefix:name (runc's and crun's documentation).
func cgroupName(cgroupsPath, id string) string {
	if cgroupsPath == "" {
		return "/" + id
	}
	part := strings.Split(cgroupsPath, ":")
	if len(part) != 3 {
		return path.Join("/", cgroupsPath)
	}
	switch prefix, name := part[1], part[2]; {
	case strings.HasSuffix(name, ".slice"):
		return "/" + name
	case prefix == "":
		return "/" + name + ".scope"
	default:
		return "/" + prefix + "-" + name + ".scope"
	}
}

// isInside tells whether a process whose /proc/PID/cgroup is lines is in or below a cgroup whose
// path ends in name: on v1 in the hierarchies of all controllers, else in the unified one.
func isInside(lines, name string) bool {
	if name == "/" {
		return false
	}
	controllers, unified := 0, false
	for line := range strings.Lines(lines) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(part) != 3 {
			return false
		}
		inside := strings.Contains(part[2]+"/", name+"/")
		switch {
		case part[1] == "":
			unified = inside
		case strings.HasPrefix(part[1], "name="):
		case !inside:
			return false
		default:
			controllers++
		}
	}
	return controllers > 0 || unified
}

// kill kills what still lives in the cgroup of a container, and tells whether there was something. Where
// containers share a cgroup, one of the others living there, it kills the init process alone. The survivor
// may be nil.
func (s *survivor) kill(others func() []int) (left bool, err error) {
	if s == nil {
		return false, nil
	}
	pids, err := s.group.Pids()
	if isNoGroup(err) || err == nil && len(pids) == 0 {
		return false, nil
	}
	strike := s.group.Signal
	if slices.ContainsFunc(others(), func(pid int) bool { return slices.Contains(pids, pid) }) {
		pids, strike = []int{s.Pid}, s.Signal
	}
	if err := strike(syscall.SIGKILL); err != nil && !isNoGroup(err) && !errors.Is(err, os.ErrProcessDone) {
		return true, fmt.Errorf("cannot kill what is left of the container: %s: %w", proc.Describe(stubborn(pids)), err)
	}
	return true, nil
}

// stubborn returns those of the processes that are still there, those first that cannot die.
func stubborn(pids []int) (left []proc.Process) {
	for _, pid := range pids {
		p, ok := proc.Read(pid)
		if !ok {
			continue
		}
		if _, stuck := p.Stuck(); stuck {
			left = append([]proc.Process{p}, left...)
		} else {
			left = append(left, p)
		}
	}
	return left
}

// isNoGroup tells whether err means that the container has no cgroup, or none of its own.
func isNoGroup(err error) bool {
	return errors.Is(err, cgroup.ErrGone) || errors.Is(err, cgroup.ErrShared)
}

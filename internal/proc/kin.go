package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// toldLimit is how many processes Describe tells of.
	toldLimit = 6
	// kinLimit is how many processes are signalled: more than that is an attack by forking, against
	// which only the control group helps.
	kinLimit = 1000
)

// Self returns the process with that pid, if it is there.
func Self(pid int) []Process {
	if p, ok := Read(pid); ok {
		return []Process{p}
	}
	return nil
}

// Family returns the process leader, the members of its process group and all their descendants. The
// leader itself comes first, if it is still there.
func Family(leader int) []Process {
	return kin(leader, func(p Process) bool { return p.Group == leader })
}

// Tree returns the process leader, all its descendants, and if it leads a session the members of that
// and their descendants: so one whose parent has ended, and which therefore has another one now,
// belongs to it still, unless it has begun a session of its own. The leader itself comes first, if it is
// still there.
func Tree(leader int) []Process {
	return kin(leader, func(p Process) bool { return p.Session == leader })
}

// Abandoned returns the processes that work in the directory dir and whose group has lost its leader: what
// a command leaves that ran there and has ended, or was killed. The directories of strangers are only
// read of, never looked into: one may be on a server that does not answer.
func Abandoned(dir string) (left []Process) {
	here, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, path := range paths {
		if at, err := os.Readlink(filepath.Join(path, "cwd")); err != nil || at != here {
			continue
		}
		p, ok := read(path)
		if !ok || p.Dead() {
			continue
		}
		if leader, led := Read(p.Group); !led || leader.Dead() {
			left = append(left, p)
		}
	}
	return left
}

func kin(leader int, belongs func(Process) bool) []Process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	children := map[int][]Process{}
	var members []Process
	for _, dir := range dirs {
		p, ok := read(dir)
		switch {
		case !ok: // it has ended
		case p.Pid == leader:
			members = slices.Insert(members, 0, p)
		case belongs(p):
			members = append(members, p)
		default:
			children[p.Parent] = append(children[p.Parent], p)
		}
	}
	for i := 0; i < len(members); i++ {
		parent := members[i].Pid
		members = append(members, children[parent]...)
		delete(children, parent)
	}
	return members
}

// SignalAll sends sig to all that find returns and that are alive, once each, and tells how many those
// were. It looks again until there is nobody new, since one that is about to die may still fork; with
// SIGKILL all are stopped first, so that none loses its parent before it is found.
func SignalAll(find func() []Process, sig syscall.Signal) int {
	if sig != syscall.SIGKILL {
		return len(sweep(find, sig))
	}
	stopped := sweep(find, syscall.SIGSTOP)
	for _, p := range stopped {
		_ = p.Signal(sig) // by now find may not find it any more: its parent has died
	}
	return max(len(stopped), len(sweep(find, sig)))
}

// sweep sends sig to all that find returns, until that is nobody new, and returns them.
func sweep(find func() []Process, sig syscall.Signal) map[string]Process {
	reached := map[string]Process{}
	for more := true; more && len(reached) < kinLimit; {
		more = false
		for _, p := range find() {
			who := fmt.Sprint(p.Pid, " ", p.start)
			if _, again := reached[who]; again || p.Dead() {
				continue
			}
			reached[who], more = p, true
			_ = p.Signal(sig) // an error says that it has ended
		}
	}
	return reached
}

// Describe tells where processes wait, in a line. Those that have ended are left out.
func Describe(processes []Process) string {
	var told []string
	for _, p := range processes {
		if p.Dead() {
			continue
		}
		if len(told) == toldLimit {
			told = append(told, "and more")
			break
		}
		told = append(told, p.String())
	}
	if len(told) == 0 {
		return "it had no processes left"
	}
	return strings.Join(told, ", ")
}

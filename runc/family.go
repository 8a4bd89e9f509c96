package runc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what an error tells about a command that hangs.
const (
	familyLimit = 6 // processes
	stackLimit  = 6 // functions of each kernel stack
)

// proc is what we read of /proc/<pid>/stat.
type proc struct {
	pid, ppid, pgrp int
	name            string
	state           string
	start           string // when it was started; together with the pid that is who it is
}

// dead tells whether the process has ended and only waits to be reaped.
func (p *proc) dead() bool { return p.state == "Z" || p.state == "X" }

// family returns a command's process, the members of its group and all its descendants, such as
// hooks, and what is to become a container: that is in a session of its own, but still the
// command's child while the command has not ended. The command itself comes first.
func family(leader int) []proc {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	children := map[int][]proc{}
	var members []proc
	for _, dir := range dirs {
		p, ok := readProc(dir)
		switch {
		case !ok: // it has ended
		case p.pid == leader:
			members = slices.Insert(members, 0, p)
		case p.pgrp == leader:
			members = append(members, p)
		default:
			children[p.ppid] = append(children[p.ppid], p)
		}
	}
	for i := 0; i < len(members); i++ {
		parent := members[i].pid
		members = append(members, children[parent]...)
		delete(children, parent)
	}
	return members
}

// killFamily kills all but the command itself, and tells whether there was anybody. It looks
// again until everybody has been sent the signal, for one that is about to die may still fork;
// those that do not heed it are not waited for.
func killFamily(leader int) bool {
	killed := map[string]bool{}
	for more := true; more && len(killed) < 1000; {
		more = false
		for _, p := range family(leader) {
			who := fmt.Sprint(p.pid, " ", p.start)
			if p.pid == leader || p.dead() || killed[who] {
				continue
			}
			killed[who], more = true, true
			p.kill()
		}
	}
	return len(killed) > 0
}

// kill sends SIGKILL to p and to no other process that may have got its pid. Where that cannot be
// made sure (before Linux 5.3) it does nothing.
func (p *proc) kill() {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // it has ended, most likely
	}
	defer unix.Close(fd) //nolint:errcheck // frees it in any case
	if now, ok := readProc(fmt.Sprintf("/proc/%d", p.pid)); ok && now.start == p.start {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // an error says that it has ended
	}
}

// describe tells where a command and its family hang: "pid 12 (runc) in state S at futex_wait_queue
// [futex_wait_queue < do_futex], …". What cannot be read is left out; wchan and stack need
// privileges (proc(5)).
func describe(leader int) string {
	var found []string
	for _, p := range family(leader) {
		if p.dead() && p.pid != leader {
			continue
		}
		if len(found) == familyLimit {
			found = append(found, "and more")
			break
		}
		found = append(found, p.describe())
	}
	if len(found) == 0 {
		return "it had no processes left"
	}
	return strings.Join(found, ", ")
}

// describe says where the process waits. Of its threads that is the one in uninterruptible sleep,
// if there is one, since nothing else resists SIGKILL; otherwise the first.
func (p *proc) describe() string {
	dir, state := fmt.Sprintf("/proc/%d", p.pid), p.state
	threads, err := filepath.Glob(filepath.Join(dir, "task/*"))
	if err == nil {
		for _, thread := range threads {
			if t, ok := readProc(thread); ok && t.state == "D" {
				dir, state = thread, t.state
				break
			}
		}
	}
	text := fmt.Sprintf("pid %d (%s) in state %s", p.pid, p.name, state)
	if wchan, err := os.ReadFile(filepath.Join(dir, "wchan")); err == nil && len(wchan) > 0 && string(wchan) != "0" {
		text += " at " + string(wchan)
	}
	if stack, err := os.ReadFile(filepath.Join(dir, "stack")); err == nil {
		if names := stackNames(stack); names != "" {
			text += " [" + names + "]"
		}
	}
	return text
}

func readProc(dir string) (proc, bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return proc{}, false // gone
	}
	return parseStat(stat)
}

// parseStat reads "pid (name) state ppid pgrp …", with the start time as the 22nd field (proc(5)).
// The name may hold blanks and parentheses.
func parseStat(stat []byte) (proc, bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return proc{}, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 {
		return proc{}, false
	}
	p := proc{name: string(stat[open+1 : end]), state: fields[0], start: fields[19]}
	var errs [3]error
	p.pid, errs[0] = strconv.Atoi(strings.TrimSpace(string(stat[:open])))
	p.ppid, errs[1] = strconv.Atoi(fields[1])
	p.pgrp, errs[2] = strconv.Atoi(fields[2])
	return p, errors.Join(errs[:]...) == nil
}

// stackNames shortens a kernel stack ("[<0>] do_wait+0x5b/0xf0" in each line) to the names of its
// innermost functions.
func stackNames(stack []byte) string {
	var names []string
	for line := range strings.Lines(string(stack)) {
		_, name, ok := strings.Cut(strings.TrimSpace(line), "] ")
		if !ok || len(names) == stackLimit {
			break
		}
		name, _, _ = strings.Cut(name, "+")
		names = append(names, name)
	}
	return strings.Join(names, " < ")
}

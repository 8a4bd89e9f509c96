package runc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Bounds of what an error tells about a command that hangs.
const (
	groupLimit = 4 // processes
	stackLimit = 6 // functions of each kernel stack
)

// groupState describes the processes of a process group for somebody who wants to know where they
// hang: "pid 12 (runc) in state S at futex_wait_queue [futex_wait_queue < do_futex]; …". What
// cannot be read is left out. wchan and stack need privileges (proc(5)).
func groupState(pgid int) string {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "its processes cannot be listed"
	}
	var found []string
	for _, dir := range procs {
		p, ok := readProc(dir)
		if !ok || p.pgrp != pgid {
			continue
		}
		if len(found) == groupLimit {
			found = append(found, "and more")
			break
		}
		found = append(found, p.describe(dir))
	}
	if len(found) == 0 {
		return "it had no processes left"
	}
	return strings.Join(found, ", ")
}

// proc is what we read of /proc/<pid>/stat.
type proc struct {
	pid   string
	name  string
	state string
	pgrp  int
}

func readProc(dir string) (proc, bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return proc{}, false // gone
	}
	return parseStat(stat)
}

// parseStat reads "pid (name) state ppid pgrp …". The name may hold blanks and parentheses.
func parseStat(stat []byte) (proc, bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return proc{}, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 3 {
		return proc{}, false
	}
	pgrp, err := strconv.Atoi(fields[2])
	if err != nil {
		return proc{}, false
	}
	pid := strings.TrimSpace(string(stat[:open]))
	return proc{pid: pid, name: string(stat[open+1 : end]), state: fields[0], pgrp: pgrp}, true
}

// describe says where the process waits. Of its threads that is the one in uninterruptible sleep,
// if there is one, since nothing else resists SIGKILL; otherwise the first.
func (p proc) describe(dir string) string {
	thread := dir
	tasks, err := filepath.Glob(filepath.Join(dir, "task/*"))
	if err == nil {
		for _, task := range tasks {
			if t, ok := readProc(task); ok && t.state == "D" {
				thread, p.state = task, t.state
				break
			}
		}
	}
	text := fmt.Sprintf("pid %s (%s) in state %s", p.pid, p.name, p.state)
	if wchan, err := os.ReadFile(filepath.Join(thread, "wchan")); err == nil && len(wchan) > 0 && string(wchan) != "0" {
		text += " at " + string(wchan)
	}
	if stack, err := os.ReadFile(filepath.Join(thread, "stack")); err == nil {
		if names := stackNames(stack); names != "" {
			text += " [" + names + "]"
		}
	}
	return text
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

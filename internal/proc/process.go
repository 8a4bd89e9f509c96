package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stackLimit is how many functions of a kernel stack are told.
const stackLimit = 6

// Process is what /proc/<pid>/stat said of a process, or of one of its threads.
type Process struct {
	Pid, Parent, Group, Session int
	Name                        string
	State                       string // R, S, D, …: see proc(5)
	flags                       uint64
	start                       string // when it was started; together with the pid that is who it is
}

// Read returns the process with that pid; ok is false if there is none.
func Read(pid int) (p Process, ok bool) { return read("/proc/" + strconv.Itoa(pid)) }

func read(dir string) (Process, bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, false // gone
	}
	return parse(stat)
}

// parse reads "pid (name) state ppid pgrp session …", with the start time as the 22nd field (proc(5)).
// The name may hold blanks and parentheses.
func parse(stat []byte) (Process, bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 {
		return Process{}, false
	}
	p := Process{Name: string(stat[open+1 : end]), State: fields[0], start: fields[19]}
	var errs [5]error
	p.Pid, errs[0] = strconv.Atoi(strings.TrimSpace(string(stat[:open])))
	p.Parent, errs[1] = strconv.Atoi(fields[1])
	p.Group, errs[2] = strconv.Atoi(fields[2])
	p.Session, errs[3] = strconv.Atoi(fields[3])
	p.flags, errs[4] = strconv.ParseUint(fields[6], 10, 64)
	return p, errors.Join(errs[:]...) == nil
}

// Dead tells whether the process has ended and only waits to be reaped.
func (p Process) Dead() bool { return p.State == "Z" || p.State == "X" }

// exiting is the flag of a process that is on its way out (PF_EXITING, in the 9th field of stat).
const exiting = 0x4

// Doomed tells whether the process has a SIGKILL that it has not yet come to, or is on its way out, or
// has ended.
func (p Process) Doomed() bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/status")
	now, ok := Read(p.Pid)
	if err != nil || !ok || now.start != p.start || now.Dead() || now.flags&exiting != 0 {
		return true
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "SigPnd" && key != "ShdPnd" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && mask&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// Signal sends sig to p and to no other process that may have got its pid. Where that cannot be made
// sure (before Linux 5.3) nothing is sent. The error is os.ErrProcessDone if p has ended.
func (p Process) Signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("hold on to pid %d: %w", p.Pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // frees it in any case
	if now, ok := Read(p.Pid); !ok || now.start != p.start {
		return os.ErrProcessDone
	}
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("send %v to pid %d: %w", sig, p.Pid, err)
	}
	return nil
}

// Stuck returns the thread of p that is in uninterruptible sleep, if there is one. Nothing else
// resists SIGKILL, but for a freezer.
func (p Process) Stuck() (thread Process, stuck bool) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.Pid))
	if err != nil {
		return Process{}, false
	}
	for _, dir := range threads {
		if t, ok := read(dir); ok && t.State == "D" {
			return t, true
		}
	}
	return Process{}, false
}

// String says where the process waits: "pid 12 (runc) in state S at futex_wait_queue [futex_wait_queue
// < do_futex]". Of its threads that is the one that is stuck, or else the first. What cannot be read
// is left out; the place and the stack need privileges (proc(5)).
func (p Process) String() string {
	at := p
	if thread, stuck := p.Stuck(); stuck {
		at = thread
	}
	dir := fmt.Sprintf("/proc/%d/task/%d", p.Pid, at.Pid)
	text := fmt.Sprintf("pid %d (%s) in state %s", p.Pid, p.Name, at.State)
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

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ident names a process for good. A pid alone does not: it is somebody else's soon after, where
// many short processes are run.
type ident struct {
	pid     int
	started string // when, in clock ticks since boot, as in /proc/PID/stat; "" if there was no process
}

// identify returns the identity of a process that has not been waited for.
func identify(pid int) ident {
	_, started := lookAt(pid)
	return ident{pid, started}
}

func (p ident) String() string { return fmt.Sprintf("%d/%s", p.pid, p.started) }

// parseIdent reads what String writes.
func parseIdent(text string) (ident, error) {
	pid, started, _ := strings.Cut(text, "/")
	n, err := strconv.Atoi(pid)
	return ident{n, started}, err
}

func readIdent(path string) (ident, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return ident{}, err
	}
	return parseIdent(string(content))
}

// isAlive tells whether the process exists and is no zombie.
func (p ident) isAlive() bool {
	state, started := lookAt(p.pid)
	return p.started != "" && started == p.started && state != "Z" && state != "X"
}

// signal sends sig to the process and to no other. That it has ended is no error.
func (p ident) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !p.isAlive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// lookAt returns the state of a process and when it started; "" if there is none.
func lookAt(pid int) (state, started string) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", ""
	}
	// The name of the program may have anything in it, also spaces and parentheses.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return "", ""
	}
	return fields[0], fields[19]
}

package oom

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openFile opens a file such that Go's poller waits for it, if it can be waited for.
func openFile(path string) (*os.File, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// counts is what a group has counted.
type counts struct {
	kills uint64 // of its processes and those of groups below; in version 1 of its own alone
	ooms  uint64 // how often a limit of it, or of a group below, was hit; in version 1 unknown
}

// count reads the counter. It does not wait, and does not mind a deadline that has passed.
func count(counter *os.File) (n counts, err error) {
	raw, err := counter.SyscallConn()
	if err != nil {
		return counts{}, err
	}
	if err1 := raw.Control(func(fd uintptr) { n, err = countAt(fd) }); err1 != nil {
		return counts{}, err1
	}
	return n, err
}

// countAt reads the counter from its beginning.
func countAt(fd uintptr) (counts, error) {
	var buf [512]byte // both files have about 100 bytes
	for {
		n, err := unix.Pread(int(fd), buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return counts{}, fmt.Errorf("read OOM kills: %w", err)
		}
		return parse(string(buf[:n])), nil
	}
}

// parse reads memory.events or memory.oom_control. A group that is killed as a whole
// (memory.oom.group) counts in oom_group_kill, and each of its processes in oom_kill; so the former
// matters only where it alone rises.
func parse(s string) counts {
	var c counts
	for line := range strings.Lines(s) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "oom_kill", "oom_group_kill":
			c.kills = max(c.kills, n)
		case "oom":
			c.ooms = n
		}
	}
	return c
}

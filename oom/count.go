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

// count reads the counter. It does not wait, and does not mind a deadline that has passed.
func count(counter *os.File) (n uint64, err error) {
	raw, err := counter.SyscallConn()
	if err != nil {
		return 0, err
	}
	if err1 := raw.Control(func(fd uintptr) { n, err = countAt(fd) }); err1 != nil {
		return 0, err1
	}
	return n, err
}

// countAt reads the counter from its beginning.
func countAt(fd uintptr) (uint64, error) {
	var buf [512]byte // both files have about 100 bytes
	for {
		n, err := unix.Pread(int(fd), buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read OOM kills: %w", err)
		}
		return parse(string(buf[:n])), nil
	}
}

// parse returns the number of kills in memory.events or memory.oom_control. A group that is killed
// as a whole (memory.oom.group) counts in oom_group_kill, and each of its processes in oom_kill; so
// the former matters only where it alone rises.
func parse(s string) uint64 {
	var kills uint64
	for line := range strings.Lines(s) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key != "oom_kill" && key != "oom_group_kill" {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			kills = max(kills, n)
		}
	}
	return kills
}

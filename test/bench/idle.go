package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// holdings is what a process holds, in the order of holdingNames.
type holdings [5]int

var holdingNames = [len(holdings{})]string{
	"private dirty, KiB", "resident, KiB", "proportional, KiB", "threads", "descriptors",
}

// idleness starts a container on each shim, waits, and returns what the shims hold.
func idleness(ctx context.Context, dir string, shims [2]string, idle time.Duration) (held [2]holdings, err error) {
	var sessions [2]*client.Session
	defer func() {
		for _, s := range sessions {
			if s != nil {
				_, _, crashErr := s.Crash(context.WithoutCancel(ctx))
				err = errors.Join(err, crashErr)
			}
		}
	}()
	for i, shim := range shims {
		if sessions[i], err = begin(ctx, filepath.Join(dir, fmt.Sprintf("idle-%d", i)), shim); err != nil {
			return held, err
		}
	}
	select {
	case <-time.After(idle):
	case <-ctx.Done():
		return held, ctx.Err()
	}
	for i, s := range sessions {
		if held[i], err = holdingsOf(s.Pid()); err != nil {
			return held, err
		}
	}
	return held, nil
}

// begin starts a container that does nothing.
func begin(ctx context.Context, dir, shim string) (*client.Session, error) {
	c, err := prepare(dir, shim, "sleep", "1000")
	if err != nil {
		return nil, err
	}
	s, err := client.Launch(ctx, dir, c, nil)
	if err != nil {
		return nil, err
	}
	create := &task.CreateTaskRequest{ID: s.Config.ID, Bundle: s.Config.Bundle}
	if _, err := s.Create(ctx, create); err != nil {
		return s, err
	}
	_, err = s.Start(ctx, &task.StartRequest{ID: s.Config.ID})
	return s, err
}

// holdingsOf asks the kernel (proc(5): smaps_rollup, status, fd).
func holdingsOf(pid int) (held holdings, err error) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	for i, field := range []struct{ file, name string }{
		{"smaps_rollup", "Private_Dirty:"}, {"smaps_rollup", "Rss:"}, {"smaps_rollup", "Pss:"},
		{"status", "Threads:"},
	} {
		if held[i], err = number(proc+field.file, field.name); err != nil {
			return held, err
		}
	}
	fds, err := os.ReadDir(proc + "fd")
	held[len(held)-1] = len(fds)
	return held, err
}

// number returns the number that follows a name in a file.
func number(path, name string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, path)
}

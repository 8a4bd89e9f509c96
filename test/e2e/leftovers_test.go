package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// leftovers says what this containerd's shims and containers have left on the machine.
func (c *containerd) leftovers() error {
	var all []error
	for _, pid := range c.shims() {
		all = append(all, fmt.Errorf("shim %d is alive: %s", pid, cmdline(pid)))
	}
	mounts, err := c.mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		all = append(all, fmt.Errorf("%s is still mounted", m))
	}
	for _, pattern := range []string{
		c.bundle("*"),
		filepath.Join("/run/containerd/runc", c.namespace, "*"),
		filepath.Join(c.dir, "runc", c.tasks, "*"),
		filepath.Join("/sys/fs/cgroup", c.namespace, "*", "cgroup.procs"),
		filepath.Join("/sys/fs/cgroup/*", c.namespace, "*", "cgroup.procs"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range found {
			all = append(all, fmt.Errorf("%s is left", path))
		}
	}
	for _, id := range c.named() {
		socket := c.shimSocket(id)
		if _, err := os.Lstat(socket); err == nil {
			all = append(all, fmt.Errorf("the shim's socket %s of %s is left", socket, id))
		}
	}
	return errors.Join(all...)
}

// shimSocket returns where the shim of a container or group listens (contract 1.6): tests and
// tools compute the path themselves, so it is part of the interface.
func (c *containerd) shimSocket(group string) string {
	sum := sha256.Sum256([]byte(filepath.Join(c.socket, c.tasks, group)))
	return fmt.Sprintf("/run/containerd/s/%x", sum)
}

// mounts returns the mount points below our directory, as containerd sees them.
func (c *containerd) mounts() ([]string, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.daemon.Process.Pid))
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(info)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, c.dir+"/") {
			found = append(found, at)
		}
	}
	return found, nil
}

// shims returns the pids of the daemons that serve this containerd.
func (c *containerd) shims() []int {
	return processes(func(args []string) bool {
		at := slices.Index(args, "-address")
		last := args[len(args)-1]
		return at > 0 && at+1 < len(args) && args[at+1] == c.socket &&
			last != "start" && last != "delete"
	})
}

// clean ends and removes what is left, wanted or not, so that a failure stays with its test.
func (c *containerd) clean() error {
	left := append(c.shims(), processes(func(args []string) bool {
		return slices.Contains(args, filepath.Join(c.dir, "config.toml"))
	})...)
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	groups, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", c.namespace))
	if err != nil {
		return err
	}
	for _, group := range append(groups, filepath.Join("/sys/fs/cgroup", c.namespace)) {
		removeGroup(group)
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, c.dir+"/") {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}
	for _, id := range c.named() {
		_ = os.Remove(c.shimSocket(id))
	}
	return errors.Join(os.RemoveAll(filepath.Join("/run/containerd/runc", c.namespace)),
		os.RemoveAll(c.dir))
}

// removeGroup kills what is in a cgroup and below, and removes it. What a live process keeps
// from being removed has been reported by leftovers.
func removeGroup(group string) {
	children, err := filepath.Glob(filepath.Join(group, "*", "cgroup.procs"))
	if err != nil {
		return
	}
	for _, child := range children {
		removeGroup(filepath.Dir(child))
	}
	procs, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(string(procs)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = poll(func() error {
		err := os.Remove(group)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
}

// processes returns the pids of all processes whose command line match accepts.
func processes(match func(args []string) bool) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		panic(err) // The pattern is a constant.
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		if args := cmdline(pid); len(args) > 0 && match(args) {
			found = append(found, pid)
		}
	}
	return found
}

// cmdline returns the command line of a process; nothing for one that has ended.
func cmdline(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return nil
	}
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(data, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args
}

// parent returns the pid of a process's parent.
func parent(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			ppid, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return ppid
		}
	}
	t.Fatalf("no parent in the status of %d", pid)
	return 0
}

// alive says whether a process exists and is not a zombie.
func alive(pid int) bool { return len(cmdline(pid)) > 0 }

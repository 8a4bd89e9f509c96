package oom

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/cgroup"
)

// hierarchy is where memory groups can be made on this host.
type hierarchy struct {
	point   string
	unified bool
}

// memoryHierarchy finds it, or skips the test.
func memoryHierarchy(t testing.TB) hierarchy {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes memory cgroups: needs root")
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		point := where[4]
		if what[0] == "cgroup" && slices.Contains(strings.Split(what[2], ","), "memory") {
			return hierarchy{point, false}
		}
		controllers, _ := os.ReadFile(filepath.Join(point, "cgroup.subtree_control"))
		if what[0] == "cgroup2" && slices.Contains(strings.Fields(string(controllers)), "memory") {
			return hierarchy{point, true}
		}
	}
	t.Skip("no memory controller in which groups can be made")
	return hierarchy{}
}

// need skips a test that is about the other version of cgroups.
func (h hierarchy) need(t testing.TB, unified bool) hierarchy {
	t.Helper()
	if h.unified != unified {
		t.Skipf("the memory controller of this host is not that of the version to be tested (unified %v)", unified)
	}
	return h
}

var groups atomic.Int32

// mkdir makes a group that is removed at the end of the test; name may be a path below another.
func (h hierarchy) mkdir(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(h.point, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rmdir(t, dir) })
	return dir
}

func (h hierarchy) group(t testing.TB) string {
	t.Helper()
	return h.mkdir(t, fmt.Sprintf("holdfast-oom-%d-%d", os.Getpid(), groups.Add(1)))
}

// rmdir removes a group once its last process has left it.
func rmdir(t testing.TB, dir string) {
	t.Helper()
	eventually(t, "remove "+dir, func() bool {
		err := os.Remove(dir)
		return err == nil || errors.Is(err, os.ErrNotExist)
	})
}

// eventually waits until done.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func write(t testing.TB, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// limit bounds what the processes in a group may use.
func (h hierarchy) limit(t testing.TB, dir string, bytes int) {
	t.Helper()
	value := fmt.Sprint(bytes)
	if h.unified {
		write(t, filepath.Join(dir, "memory.max"), value)
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0) // absent without swap accounting
		return
	}
	write(t, filepath.Join(dir, "memory.limit_in_bytes"), value)
	_ = os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), []byte(value), 0) // likewise
}

// container is a shell in a group of its own. It waits for a line on its input, then goes on.
type container struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	group *cgroup.Group
}

// eat is a command that uses far more memory than the tests allow.
const eat = "dd if=/dev/zero of=/dev/null bs=96M count=1 2>/dev/null"

// start runs a script as a container in the group dir.
func start(t testing.TB, dir, script string) *container {
	t.Helper()
	c := &container{cmd: exec.Command("sh", "-c", "read go; "+script)}
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
	})
	write(t, filepath.Join(dir, "cgroup.procs"), fmt.Sprint(c.cmd.Process.Pid))
	if c.group, err = cgroup.Of(c.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got, _, ok := c.group.Memory(); !ok || got != dir {
		t.Fatalf("the container's memory is in %q, not in %s", got, dir)
	}
	return c
}

// goOn gives it its line.
func (c *container) goOn(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(c.stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
}

// wait reaps it and returns the signal that killed it, if one did.
func (c *container) wait(t testing.TB) syscall.Signal {
	t.Helper()
	_ = c.cmd.Wait() // the status says it all
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return status.Signal()
	}
	return 0
}

// says waits for a line of output.
func (c *container) says(t testing.TB, want string) {
	t.Helper()
	if got, err := c.out.ReadString('\n'); strings.TrimSpace(got) != want {
		t.Fatalf("the container says %q (%v), not %q", got, err, want)
	}
}

// reports are those of a Watch.
type reports struct {
	atomic.Int32
	limit atomic.Value // of the last
}

// watch opens a Watch of the container and counts its reports.
func (c *container) watch(t testing.TB) (*Watch, *reports) {
	t.Helper()
	w, err := Open(c.group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	r := &reports{}
	r.limit.Store("none")
	w.Start(func(limit string) {
		r.limit.Store(limit)
		r.Add(1)
	})
	return w, r
}

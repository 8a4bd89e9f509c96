package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A result is what a command left.
type result struct {
	Stdout, Stderr string
	Code           int
}

// command returns the command line of ctr for this containerd.
func (c *containerd) command(args ...string) []string {
	ctr := []string{c.tool("ctr"), "--address", c.socket, "--namespace", c.tasks}
	return append(ctr, args...)
}

// environment returns ctr's environment: ours, and no warning about cgroup v1 at every call.
func environment() []string {
	return append(os.Environ(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1")
}

// ctr runs ctr with no input.
func (c *containerd) ctr(t *testing.T, args ...string) result {
	t.Helper()
	return c.ctrWith(t, "", args...)
}

// ctrWith runs ctr with the given standard input.
func (c *containerd) ctrWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return execute(t, stdin, c.command(args...))
}

// execute runs a command line with the given standard input, and environment beside that of ctr.
func execute(t *testing.T, stdin string, line []string, env ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(environment(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%q did not end within %v; its output: %s%s", line, patience, &stdout, &stderr)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", line, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// A tool is another client of containerd's than ctr.
type tool struct {
	name string
	line []string // its command line, with the flags that say which containerd
	env  []string
}

// build builds the tool of a name, from the module of that name below test, and returns its path. The
// test is skipped if that cannot be.
func build(t *testing.T, name string) string {
	t.Helper()
	dir, err := output("../build-tool", name)
	if err != nil {
		t.Skipf("%s cannot be built: %v", name, err)
	}
	return filepath.Join(dir, name)
}

// run returns what the tool prints, without white space around it, and its exit status.
func (o *tool) run(t *testing.T, args ...string) result {
	t.Helper()
	r := execute(t, "", append(slices.Clone(o.line), args...), o.env...)
	r.Stdout = strings.TrimSpace(r.Stdout)
	return r
}

// ok is run for what has to succeed.
func (o *tool) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := o.run(t, args...)
	if r.Code != 0 {
		t.Fatalf("%s %q: %+v", o.name, args, r)
	}
	return r.Stdout
}

// ok runs ctr, demands that it succeeds, and returns its output.
func (c *containerd) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := c.ctr(t, args...)
	if r.Code != 0 {
		t.Fatalf("ctr %q ended with %d: %s%s", args, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// A runtime is one of the names under which the shim can be used.
type runtime struct {
	name   string // what the subtests are called
	flag   string // for ctr's --runtime
	binary string // what containerd has to find
}

// runtimes returns our three names: a runtime name of our own, any absolute path, and the
// standard name under which the shim replaces containerd's own.
func (c *containerd) runtimes() []runtime {
	path := filepath.Join(c.bin(), "shim-by-path")
	return []runtime{
		{"name", "io.containerd.holdfast.v2", c.bin() + "/containerd-shim-holdfast-v2"},
		{"path", path, path},
		{"drop-in", "io.containerd.runc.v2", c.bin() + "/containerd-shim-runc-v2"},
	}
}

// detached starts a container that nobody is attached to and returns its id and init's pid.
func (c *containerd) detached(t *testing.T, flags []string, args ...string) (string, int) {
	t.Helper()
	id := c.id()
	line := append([]string{"run", "-d"}, flags...)
	c.ok(t, append(append(line, image, id), args...)...)
	return id, c.task(t, id).pid
}

// A task is a line of `ctr task ls`.
type task struct {
	pid    int
	status string
}

// task returns what containerd says about a task; the zero task when there is none.
func (c *containerd) task(t *testing.T, id string) task {
	t.Helper()
	for line := range strings.Lines(c.ok(t, "task", "ls")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return task{pid, f[2]}
		}
	}
	return task{}
}

// status waits until a task has the given status.
func (c *containerd) status(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := c.task(t, id).status; got != want {
			return fmt.Errorf("task %s is %q, want %s", id, got, want)
		}
		return nil
	})
}

// delete deletes a stopped task, which must have ended with status, and its container.
func (c *containerd) delete(t *testing.T, id string, status uint32) {
	t.Helper()
	c.ok(t, "task", "rm", id)
	if got := c.events.deleted(t, id).ExitStatus; got != status {
		t.Errorf("status in the delete event of %s: got %d, want %d", id, got, status)
	}
	c.ok(t, "container", "rm", id)
}

// remove kills and deletes a task that may be alive, and its container.
func (c *containerd) remove(t *testing.T, id string) {
	t.Helper()
	if c.task(t, id).status == "RUNNING" {
		c.ok(t, "task", "kill", "-s", "KILL", id)
		c.status(t, id, "STOPPED")
	}
	c.ok(t, "task", "rm", id)
	c.ok(t, "container", "rm", id)
}

// touch makes a file inside a running container.
func touch(t *testing.T, pid int, path string) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", pid, path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// logs waits until a log file in our directory holds text, and returns all of it.
func (c *containerd) logs(t *testing.T, name, text string) string {
	t.Helper()
	var log string
	eventually(t, func() error {
		data, err := os.ReadFile(filepath.Join(c.dir, name))
		if err != nil {
			return err
		}
		if log = string(data); !strings.Contains(log, text) {
			return fmt.Errorf("%s does not hold %q but %q", name, text, log)
		}
		return nil
	})
	return log
}

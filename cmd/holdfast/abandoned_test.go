package main

import (
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// TestRunWhoseShimWasKilledIsFoundAndRemoved kills shims of runs, one that was left running and one whose
// holdfast was killed first.
func TestRunWhoseShimWasKilledIsFoundAndRemoved(t *testing.T) {
	needRoot(t)
	for name, flags := range map[string][]string{"detached": {"-d"}, "foreground": nil} {
		t.Run(name, func(t *testing.T) {
			id := "lost-" + rand.Text()
			bundle := newBundle(t, "echo ready; exec sleep 1000", func(c *client.BundleConfig) { c.CgroupsPath = "/" + id })
			cmd, tmp := holdfast(t, deadline(t, runLimit), append(append([]string{"run", "--id", id}, flags...), bundle)...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := readUntil(out, map[bool]string{true: id, false: "ready"}[flags != nil]); err != nil {
				t.Fatal(err)
			}
			if flags == nil {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait() // its status is not of interest
			if err := unix.Kill(shimIn(t, tmp), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			run := func(args ...string) result {
				t.Helper()
				cmd, other := holdfast(t, deadline(t, runLimit), args...)
				cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
				var errs strings.Builder
				cmd.Stderr = &errs
				out, err := cmd.Output()
				if cmd.ProcessState == nil {
					t.Fatal(err)
				}
				leftNothing(t, other)
				return result{cmd.ProcessState.ExitCode(), string(out), errs.String()}
			}
			if r := run("ls"); !strings.Contains(r.stdout, string(runWithoutShim)) || !strings.Contains(r.stdout, id) {
				t.Errorf("ls: %+v", r)
			}
			if r := run("delete", id); r.status != 0 || !strings.Contains(r.stderr, "the shim of "+id+" had died, and what was left is removed; the container has ended with status 137") {
				t.Errorf("delete: %+v", r)
			}
			if r := run("delete", id); r.status != exitFailed || !strings.Contains(r.stderr, "cannot find the shim of "+id) {
				t.Errorf("delete again: %+v", r)
			}
			leftNothing(t, tmp)
		})
	}
}

// waitUntil waits until something is so, for as long as a run may take.
func waitUntil(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(runLimit); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come true that %s", what)
		}
	}
}

// TestCollectingRuns checks that gc removes a run whose container has ended, too, and nothing before.
func TestCollectingRuns(t *testing.T) {
	needRoot(t)
	id := "lost-" + rand.Text()
	bundle := newBundle(t, "exec sleep 1000", func(c *client.BundleConfig) { c.CgroupsPath = "/" + id })
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "--id", id, "-d", bundle)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Setenv("TMPDIR", tmp)
	judge := func(now func() time.Time, yes bool) verdict {
		t.Helper()
		runs, err := abandonedRuns(t.Context())
		if err != nil || len(runs) > 1 {
			t.Fatalf("%v, %v", runs, err)
		}
		if len(runs) == 0 {
			return verdict{}
		}
		return gcOptions{now: now, yes: yes}.judge(t.Context(), runs[0].leak(), runs[0])
	}
	if v := judge(later, true); v.Action != "" {
		t.Errorf("with a shim: %+v", v)
	}
	runs, err := filepath.Glob(filepath.Join(tmp, "holdfast-*"))
	if err != nil || len(runs) != 1 {
		t.Fatalf("%v, %v", runs, err)
	}
	noted, err := os.ReadFile(filepath.Join(runs[0], "bundle", id, "init.pid"))
	if err != nil {
		t.Fatal(err)
	}
	init, err := strconv.Atoi(strings.TrimSpace(string(noted)))
	if err != nil {
		t.Fatal(err)
	}
	shim := shimIn(t, tmp)
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the shim has gone", func() bool { return judge(later, false).Action != "" })
	if v := judge(later, true); v.Action != keep || !strings.Contains(v.Reason, "holdfast delete "+id) {
		t.Errorf("with a container: %+v", v)
	}
	if err := unix.Kill(init, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the container has ended", func() bool { return judge(later, false).Action == wouldRemove })
	if v := judge(time.Now, true); v.Action != keep || !strings.Contains(v.Reason, "just been made") {
		t.Errorf("a young one: %+v", v)
	}
	if v := judge(later, true); v.Action != removed || !strings.Contains(v.Reason, "its shim and its container are gone; the container has ended with status") {
		t.Errorf("%+v", v)
	}
	leftNothing(t, tmp)
}

// TestShimOfAnotherNameIsNotGone runs a shim that is not found among the processes.
func TestShimOfAnotherNameIsNotGone(t *testing.T) {
	needRoot(t)
	odd := filepath.Join(t.TempDir(), "odd")
	if out, err := exec.Command("cp", filepath.Join(programs, shimName), odd).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id := "odd-" + rand.Text()
	bundle := newBundle(t, "exec sleep 1000", func(c *client.BundleConfig) { c.CgroupsPath = "/" + id })
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "--id", id, "-d", "--shim", odd, bundle)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Setenv("TMPDIR", tmp)
	if runs, err := abandonedRuns(t.Context()); err != nil || len(runs) != 0 {
		t.Errorf("the run counts as abandoned: %v, %v", runs, err)
	}
	t.Setenv("TMPDIR", "") // as before
	sockets, err := filepath.Glob(filepath.Join(tmp, "holdfast-*", "s", "*"))
	if err != nil || len(sockets) == 0 {
		t.Fatalf("%v, %v", sockets, err)
	}
	for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
		if r := runHoldfast(t, "", verb, "--address", "unix://"+sockets[0], id); r.status != 0 {
			t.Errorf("%s: %+v", verb, r)
		}
	}
	leftNothing(t, tmp)
}

// TestRunsOfOthersAreNotRuns looks at directories that somebody else could have made, for root to run a
// program of his.
func TestRunsOfOthersAreNotRuns(t *testing.T) {
	needRoot(t)
	for _, row := range []struct {
		name   string
		change func(dir string) error
		want   bool
	}{
		{"ours", func(string) error { return nil }, true},
		{"directory of another user", func(dir string) error { return os.Chown(dir, 1000, 1000) }, false},
		{"file of another user", func(dir string) error { return os.Chown(filepath.Join(dir, runFile), 1000, 1000) }, false},
		{"directory that others may write to", func(dir string) error { return os.Chmod(dir, 0o777) }, false},
		{"file that others may write to", func(dir string) error { return os.Chmod(filepath.Join(dir, runFile), 0o666) }, false},
		{"link", func(dir string) error {
			file := filepath.Join(dir, runFile)
			return errors.Join(os.Rename(file, file+"2"), os.Symlink(file+"2", file))
		}, false},
		{"nothing", func(dir string) error { return os.Remove(filepath.Join(dir, runFile)) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, runFile), []byte(`{"ID":"c1"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := row.change(dir); err != nil {
				t.Fatal(err)
			}
			config, err := readRun(dir)
			if err != nil || (config != nil) != row.want || row.want && config.ID != "c1" {
				t.Errorf("%+v, %v", config, err)
			}
		})
	}
}

package main

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			if _, err := readUntil(out, map[bool]string{true: "shutdown", false: "ready"}[flags != nil]); err != nil {
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
			if r := run("delete", id); r.status != 0 || !strings.Contains(r.stderr, "the shim of "+id+" had died; the container has ended with status 137") {
				t.Errorf("delete: %+v", r)
			}
			if r := run("delete", id); r.status != exitFailed || !strings.Contains(r.stderr, "cannot find the shim of "+id) {
				t.Errorf("delete again: %+v", r)
			}
			leftNothing(t, tmp)
		})
	}
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

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

func TestRunGreetsAndReports(t *testing.T) {
	needRoot(t)
	leak.Check(t)
	got := runHoldfast(t, "", "run", "--id", "greeter")
	if got.status != 7 {
		t.Errorf("status %d, want that of the container, 7", got.status)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Hello", strings.TrimSpace(string(kernel)), "user      root", "pid       1\n", "hostname  holdfast"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in the greeting %q", want, got.stdout)
		}
	}
	if diff := cmp.Diff(lifeOf, topics(got.stderr)); diff != "" {
		t.Errorf("events: %s\n%s", diff, got.stderr)
	}
	if !strings.Contains(got.stderr, "exit status 7\n") || strings.Contains(got.stderr, "holdfast:") {
		t.Errorf("report: %s", got.stderr)
	}
}

func TestRunReadsABundleOnly(t *testing.T) {
	needRoot(t)
	bundle := newBundle(t, "cat /mnt/file; echo mine >/new; exit 3", func(cfg *client.BundleConfig) {
		cfg.Mounts = []specs.Mount{{Destination: "/mnt", Source: "shared", Type: "none", Options: []string{"bind", "ro"}}}
	})
	shared := filepath.Join(bundle, "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "file"), []byte("from the bundle\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := contents(t, bundle)
	got := runHoldfast(t, "", "run", bundle)
	if got.status != 3 || got.stdout != "from the bundle\n" {
		t.Errorf("status %d, output %q; %s", got.status, got.stdout, got.stderr)
	}
	after := contents(t, bundle)
	if after["rootfs/new"] != "mine\n" {
		t.Error("the root directory is not that of the bundle")
	}
	delete(after, "rootfs/new")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the bundle has changed: %s", diff)
	}
}

func TestRunPassesOnStdin(t *testing.T) {
	needRoot(t)
	bundle := newBundle(t, "wc -c; echo errors >&2", nil)
	if got := runHoldfast(t, "12345", "run", "-i", bundle); got.status != 0 || got.stdout != "5\n" ||
		!strings.HasPrefix(got.stderr, "errors\n") {
		t.Errorf("with -i: %+v", got)
	}
	if got := runHoldfast(t, "12345", "run", bundle); got.status != 0 || got.stdout != "0\n" {
		t.Errorf("without -i: %+v", got)
	}
}

func TestRunPassesOnManyBytes(t *testing.T) {
	needRoot(t)
	got := runHoldfast(t, "", "run", newBundle(t, "head -c 20000000 /dev/zero", nil))
	if len(got.stdout) != 20_000_000 || got.status != 0 {
		t.Errorf("%d bytes, status %d: %s", len(got.stdout), got.status, got.stderr)
	}
}

func TestFailedRunExplainsAndLeavesNothing(t *testing.T) {
	needRoot(t)
	rows := []struct {
		name string
		args []string
		want string
	}{
		{"no such runtime", []string{"--runtime", "nonsense"}, `"nonsense"`},
		{"no such program", []string{newBundle(t, "", func(c *client.BundleConfig) { c.Args = []string{"/nonsense"} })}, "/nonsense"},
		{"no such terminal program", []string{"-t", newBundle(t, "", func(c *client.BundleConfig) { c.Args = []string{"/nonsense"} })}, "/nonsense"},
		{"shim is no shim", []string{"--shim", "/bin/true"}, "start shim"},
		{"detached", []string{"-d", "--runtime", "nonsense"}, `"nonsense"`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := runHoldfast(t, "", append([]string{"run"}, row.args...)...)
			if got.status != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, row.want) {
				t.Errorf("%q is not in %+v", row.want, got)
			}
		})
	}
}

func TestSignalKillsAndLeavesNothing(t *testing.T) {
	needRoot(t)
	bundle := newBundle(t, "trap '' TERM INT; echo running; while :; do sleep 1; done", nil)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, tmp, stderr := started(t, "run", bundle)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // the status is looked at
			if got := cmd.ProcessState.ExitCode(); got != 137 {
				t.Errorf("status %d, want 137: %s", got, stderr)
			}
			if diff := cmp.Diff(lifeOf, topics(stderr.String())); diff != "" {
				t.Errorf("events: %s", diff)
			}
			leftNothing(t, tmp)
		})
	}
}

func TestDeadShimIsCleanedUpAfter(t *testing.T) {
	needRoot(t)
	cmd, tmp, stderr := started(t, "run", newBundle(t, "echo running; exec sleep 1000", nil))
	pid := shimIn(t, tmp)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // the status is looked at
	if got := cmd.ProcessState.ExitCode(); got != exitFailed || !strings.Contains(stderr.String(), "closed") {
		t.Errorf("status %d: %s", got, stderr)
	}
	leftNothing(t, tmp)
}

func TestSecondSignalDoesNotWaitForTheShim(t *testing.T) {
	needRoot(t)
	cmd, tmp, stderr := started(t, "run", newBundle(t, "echo running; exec sleep 1000", nil))
	// A stopped shim answers nothing, the kill included.
	pid := shimIn(t, tmp)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait() // the status is looked at
	if got := cmd.ProcessState.ExitCode(); got != exitFailed {
		t.Errorf("status %d: %s", got, stderr)
	}
	leftNothing(t, tmp)
}

func TestOutputNobodyReadsEndsTheContainer(t *testing.T) {
	needRoot(t)
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", newBundle(t, "exec yes", nil))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := readUntil(r, "y\n"); err != nil {
		t.Error(err)
	}
	r.Close()
	cmd.Wait() // the status is looked at
	if got := cmd.ProcessState.ExitCode(); got != 137 {
		t.Errorf("status %d, want 137: %s", got, &stderr)
	}
	if diff := cmp.Diff(lifeOf, topics(stderr.String())); diff != "" {
		t.Errorf("events: %s", diff)
	}
	leftNothing(t, tmp)
}

func TestLongTemporaryDirectoryIsAvoided(t *testing.T) {
	needRoot(t)
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	if err := os.Mkdir(long, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, _ := holdfast(t, deadline(t, runLimit), "run")
	cmd.Env = append(cmd.Env, "TMPDIR="+long)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%v: %s", err, out)
	}
	leftNothing(t, long)
}

func TestNothingIsRemovedThroughAMount(t *testing.T) {
	needRoot(t)
	dir, other := t.TempDir(), t.TempDir()
	precious, target := filepath.Join(other, "precious"), filepath.Join(dir, "target")
	write(t, precious, "x")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(other, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := removeAll(dir)
	if unmountErr := unix.Unmount(target, 0); unmountErr != nil {
		t.Error(unmountErr)
	}
	if _, statErr := os.Stat(precious); err == nil || statErr != nil || !strings.Contains(err.Error(), target) {
		t.Errorf("error %v; the file: %v", err, statErr)
	}
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
}

func TestRuntimeCanBeChosen(t *testing.T) {
	needRoot(t)
	for _, program := range []string{"crun", "unshare", "mountpoint"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %v", program, err)
		}
	}
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "--runtime", "crun")
	// crun refuses hosts that have controllers in the version 2 hierarchy beside those of version 1.
	wrapped := exec.CommandContext(deadline(t, runLimit), "../../test/without-unified", cmd.Args...)
	wrapped.Env = cmd.Env
	out, err := wrapped.CombinedOutput()
	if wrapped.ProcessState.ExitCode() != 7 || !strings.Contains(string(out), "pid       1\n") {
		t.Errorf("%v: %s", err, out)
	}
	leftNothing(t, tmp)
}

func TestOlderShimRunsToo(t *testing.T) {
	needRoot(t)
	const shim = "/usr/bin/containerd-shim-runc-v2"
	if _, err := os.Stat(shim); err != nil {
		t.Skipf("needs %s: %v", shim, err)
	}
	got := runHoldfast(t, "", "run", "--legacy", "--shim", shim)
	if got.status != 7 || !strings.Contains(got.stdout, "Hello") {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(lifeOf, topics(got.stderr)); diff != "" {
		t.Errorf("events: %s\n%s", diff, got.stderr)
	}
}

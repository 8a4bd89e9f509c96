// Package vm runs tests of other packages in a virtual machine that has what their host may lack:
// cgroup v2 alone, a newer kernel, and newer runtimes.
package vm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script is what boots the machine, from the root of the checkout, unless VMRUN names another. It is
// documented beside it.
const script = "../shared/vm/vmrun"

// release is the Debian release in the machine: its crun understands the specification that
// containerd 2 writes, which Debian 12's does not. Its kernel now and then panics under the QEMU of
// Debian 12, in the middle of patching its own code; that of Debian 12 was not seen to.
const (
	release       = "trixie"
	kernelRelease = "bookworm"
)

// machineFailed is the exit status that says that the machine failed, not what ran in it. It gets
// another try then.
const (
	machineFailed = 125
	boots         = 3
)

// A machine is booted once for all its suites, which run one after the other: a boot costs as much as
// many tests.
type machine struct {
	flavour string // of the script that boots
	suites  []suite
}

// What bounds a run of a machine, the making of its disk not included: usual in make test, long where
// everything runs.
const (
	usual = 20 * time.Minute
	long  = 50 * time.Minute
)

// A suite is a test binary and the tests of it to run.
type suite struct {
	module string // directory of the module, from the root of the checkout
	pkg    string
	tags   string // build tags
	tests  string // pattern for -test.run
}

// minimal has no systemd: the tests run as children of process 1.
var minimal = machine{"minimal", []suite{
	{".", "./oom", "no_grpc", "."},
	{".", "./internal/cgroup", "no_grpc", "."},
	{".", "./test/direct", "no_grpc", "^(TestWholeLife|TestTerminal|TestExecsOfARunningContainer|TestEveryOOMKillIsToldOnce|" +
		"TestOOMOf.*|TestPause.*|TestUpdate.*|TestPids.*|TestKillAll|TestStats.*|TestCheckpointAndRestore|" +
		"TestContainerGoesOnWhileTheManagerIsAway|TestContainerIsNotKilledForWhatNobodyReads)$"},
	{"test/e2e", ".", "", "^(TestCrun.*|TestOutputPilesUpWhileContainerdIsAway|TestFigures|TestPrometheus)$/(2.4|crun)"},
}}

// systemd is process 1, and makes the containers' groups.
var systemd = machine{"systemd", []suite{
	{".", "./test/direct", "no_grpc", "^(TestSystemd.*|TestScope.*|TestEveryOOMKillInAScopeIsToldOnce|TestRootless)$"},
}}

// With HOLDFAST_VM=all everything runs, else what is to be had in little time; see make test-vm.
const (
	allVariable  = "HOLDFAST_VM"
	oomsVariable = "HOLDFAST_OOMS" // how many processes are killed for want of memory, see test/direct
	fewOOMs      = "10"
)

// TestInMachine runs the suites of the minimal machine: cgroup v2 alone.
func TestInMachine(t *testing.T) { minimal.test(t) }

// TestInMachineWithSystemd runs those of a machine with systemd.
func TestInMachineWithSystemd(t *testing.T) {
	if os.Getenv(allVariable) != "all" {
		t.Skip("runs in make test-vm")
	}
	systemd.test(t)
}

// test boots the machine and runs its suites.
func (m machine) test(t *testing.T) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	vmrun := os.Getenv("VMRUN")
	if vmrun == "" {
		vmrun = filepath.Join(root, script)
	}
	if _, err := os.Stat(vmrun); err != nil {
		t.Skipf("no virtual machine: %v; set VMRUN to a script that boots one", err)
	}
	ooms := cmp.Or(os.Getenv(oomsVariable), fewOOMs)
	limit := usual
	if os.Getenv(allVariable) == "all" {
		limit = long
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit+2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	commands := m.build(t, ctx, root, dir)
	out := inMachine(t, ctx, root, vmrun, "-f", m.flavour, "-t", fmt.Sprint(int(limit.Seconds())), "-s", dir+":/mnt/t",
		"-e", "HOLDFAST_TEST_BINARIES=/mnt/t", "-e", oomsVariable+"="+ooms, "-w", "/tmp", "--", "sh", "-c", commands)
	if !strings.Contains(out, "--- PASS") {
		t.Errorf("nothing ran:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "--- ") || strings.Contains(line, " kills in ") {
			t.Log(strings.TrimRight(line, "\n"))
		}
	}
}

// build makes what the machine needs in dir, and returns the commands that it runs.
func (m machine) build(t *testing.T, ctx context.Context, root, dir string) string {
	t.Helper()
	run(t, ctx, root, "make", "-s", "build")
	copyTo(t, dir, filepath.Join(root, "bin", "containerd-shim-holdfast-v2"))
	copyTo(t, dir, filepath.Join(root, "test", "without-unified")) // tests look for it above them
	containerd := strings.TrimSpace(run(t, ctx, root, "test/build-containerd"))
	for _, program := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		copyTo(t, dir, filepath.Join(containerd, program))
	}
	run(t, ctx, root, "go", "build", "-tags", "no_grpc", "-o", filepath.Join(dir, "fakerunc"), "./test/fakerunc")
	commands := "failed=0\n"
	for i, s := range m.suites {
		name := strconv.Itoa(i)
		module := filepath.Join(root, s.module)
		run(t, ctx, module, "go", "test", "-c", "-tags", s.tags, "-o", filepath.Join(dir, name, "tests"), s.pkg)
		data := filepath.Join(module, s.pkg, "testdata")
		if _, err := os.Stat(data); err == nil {
			if err := os.CopyFS(filepath.Join(dir, name, "testdata"), os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
		}
		commands += "echo '" + s.pkg + "'; cd /mnt/t/" + name + "; ./tests -test.v -test.run '" + s.tests + "' || failed=1\n"
	}
	return commands + "exit $failed\n"
}

// inMachine runs the script that boots the machine, again if the machine itself fails.
func inMachine(t *testing.T, ctx context.Context, dir, name string, args ...string) string {
	t.Helper()
	for boot := 1; ; boot++ {
		out, err := try(t, ctx, dir, name, args...)
		var exit *exec.ExitError
		if boot < boots && errors.As(err, &exit) && exit.ExitCode() == machineFailed {
			t.Logf("boot %d of the machine failed: %v", boot, err)
			continue
		}
		if err != nil {
			t.Fatalf("%v\nfailed:\n%s", err, failures(out))
		}
		return out
	}
}

// failures returns what tests that failed printed, the last thing that is read of a long output.
func failures(out string) string {
	var failed strings.Builder
	said := map[string]string{} // by test, what was printed while it ran
	var running string
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) == 3 && words[0] == "===":
			running = words[2]
		case len(words) > 2 && words[1] == "FAIL:":
			failed.WriteString(line + said[words[2]])
		case len(words) > 2 && words[0] == "---": // passed, or skipped
		default:
			said[running] += line
		}
	}
	return failed.String()
}

// run runs a command and returns what it printed.
func run(t *testing.T, ctx context.Context, dir, name string, args ...string) string {
	t.Helper()
	out, err := try(t, ctx, dir, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try runs a command and returns what it printed, also when it failed. All that is built is static, for a machine with
// other libraries.
func try(t *testing.T, ctx context.Context, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "VM_SUITE="+release, "VM_KERNEL_SUITE="+kernelRelease,
		"VM_CACHE="+cache(t))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s\n%s", cmd, err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// cache is where the machine's disk is kept, since making it takes a minute and a hundred megabytes.
func cache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("VM_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "holdfast", "vm")
}

func copyTo(t *testing.T, dir, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestFailuresAreReadLast checks that of a long output that is kept which says why a test failed.
func TestFailuresAreReadLast(t *testing.T) {
	out := `=== RUN   TestA
    a.go:1: all is well
=== RUN   TestB
=== PAUSE TestB
--- PASS: TestA (0.01s)
=== NAME  TestB
    b.go:2: cannot b
    --- FAIL: TestB (0.02s)
FAIL
`
	if got, want := failures(out), "    --- FAIL: TestB (0.02s)\n    b.go:2: cannot b\n"; got != want {
		t.Errorf("failures kept %q, want %q", got, want)
	}
}

// Package vm runs tests of other packages in a virtual machine that has what their host may lack:
// cgroup v2 alone, a newer kernel, and newer runtimes.
package vm

import (
	"bytes"
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

// machine is where the script that boots the machine is, from the root of the checkout, unless
// VMRUN names another. It is documented beside it.
const machine = "../shared/vm/vmrun"

// suite is the Debian release in the machine: its crun understands the specification that
// containerd 2 writes, which Debian 12's does not. Its kernel now and then panics under the QEMU of
// Debian 12, in the middle of patching its own code; that of Debian 12 was not seen to.
const (
	suite       = "trixie"
	kernelSuite = "bookworm"
)

// machineFailed is the exit status that says that the machine failed, not what ran in it. It gets
// another try then.
const (
	machineFailed = 125
	boots         = 3
)

// limit bounds one run, the making of the machine's disk included.
const limit = 22 * time.Minute

// suites are the test binaries to run and the tests of each. They run one after the other in one
// boot, since a boot costs as much as many tests.
var suites = []struct {
	module string // directory of the module, from the root of the checkout
	pkg    string
	tags   string // build tags
	tests  string // pattern for -test.run
}{
	{".", "./oom", "no_grpc", "."},
	{".", "./internal/cgroup", "no_grpc", "."},
	{".", "./test/direct", "no_grpc", "^(TestWholeLife|TestTerminal|TestExecsOfARunningContainer|TestOOM.*|TestPause.*|TestStats.*|TestCheckpointAndRestore|" +
		"TestContainerGoesOnWhileTheManagerIsAway|TestContainerIsNotKilledForWhatNobodyReads)$"},
	{"test/e2e", ".", "", "^(TestCrun.*|TestOutputPilesUpWhileContainerdIsAway)$/(2.4|crun)"},
}

// TestInMachine boots the machine and runs what suites names.
func TestInMachine(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	vmrun := os.Getenv("VMRUN")
	if vmrun == "" {
		vmrun = filepath.Join(root, machine)
	}
	if _, err := os.Stat(vmrun); err != nil {
		t.Skipf("no virtual machine: %v; set VMRUN to a script that boots one", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir := t.TempDir()
	run(t, ctx, root, "make", "-s", "build")
	copyTo(t, dir, filepath.Join(root, "bin", "containerd-shim-holdfast-v2"))
	copyTo(t, dir, filepath.Join(root, "test", "without-unified")) // tests look for it above them
	containerd := strings.TrimSpace(run(t, ctx, root, "test/build-containerd"))
	for _, program := range []string{"containerd", "ctr"} {
		copyTo(t, dir, filepath.Join(containerd, program))
	}
	run(t, ctx, root, "go", "build", "-tags", "no_grpc", "-o", filepath.Join(dir, "fakerunc"), "./test/fakerunc")

	script := "failed=0\n"
	for i, s := range suites {
		name := strconv.Itoa(i)
		module := filepath.Join(root, s.module)
		run(t, ctx, module, "go", "test", "-c", "-tags", s.tags, "-o", filepath.Join(dir, name, "tests"), s.pkg)
		data := filepath.Join(module, s.pkg, "testdata")
		if _, err := os.Stat(data); err == nil {
			if err := os.CopyFS(filepath.Join(dir, name, "testdata"), os.DirFS(data)); err != nil {
				t.Fatal(err)
			}
		}
		script += "echo '" + s.pkg + "'; cd /mnt/t/" + name + "; ./tests -test.v -test.run '" + s.tests + "' || failed=1\n"
	}
	script += "exit $failed\n"
	out := inMachine(t, ctx, root, vmrun, "-t", "1200", "-s", dir+":/mnt/t", "-e", "HOLDFAST_TEST_BINARIES=/mnt/t",
		"-w", "/tmp", "--", "sh", "-c", script)
	if !strings.Contains(out, "--- PASS") {
		t.Errorf("nothing ran:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "--- ") {
			t.Log(strings.TrimRight(line, "\n"))
		}
	}
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
			t.Fatal(err)
		}
		return out
	}
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

// try runs a command and returns what it printed. All that is built is static, for a machine with
// other libraries.
func try(t *testing.T, ctx context.Context, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "VM_SUITE="+suite, "VM_KERNEL_SUITE="+kernelSuite,
		"VM_CACHE="+cache(t))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s\n%s", cmd, err, &stdout, &stderr)
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

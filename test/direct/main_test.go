package direct

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shimBinary and fakeRuntime are built once, from the tree under test.
var shimBinary, fakeRuntime string

// What TestCrun tells the copy of this binary that it runs.
const (
	binariesVariable = "HOLDFAST_TEST_BINARIES" // a directory with both binaries, so that they are not built again
	runtimeVariable  = "HOLDFAST_TEST_RUNTIME"  // the runtime of every container whose test names none
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if len(os.Args) > 1 && os.Args[1] == loggerWord {
		asLogger(os.Args)
	}
	if len(os.Args) > 1 && os.Args[1] == threadsWord {
		asThreads()
	}
	dir := os.Getenv(binariesVariable)
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "direct"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
	}
	shimBinary = filepath.Join(dir, "containerd-shim-holdfast-v2")
	fakeRuntime = filepath.Join(dir, "fakerunc")
	if os.Getenv(binariesVariable) == "" && !build() {
		return 1
	}
	return m.Run()
}

func build() bool {
	for _, build := range []*exec.Cmd{
		exec.Command("make", "-s", "-C", "../..", "build", "BIN="+filepath.Dir(shimBinary)), // as users have it
		exec.Command("go", "build", "-tags", "no_grpc", "-o", fakeRuntime, "holdfast/test/fakerunc"),
	} {
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
			return false
		}
	}
	return true
}

// withCrun are the tests that TestCrun repeats: those that the runtime has a part in.
var withCrun = []string{
	"TestWholeLife", "TestExecsOfARunningContainer", "TestTerminal", "TestEveryOperationInEveryState",
	"TestManyShortExecs", "TestManyCycles", "TestInitOfHostPIDContainerKilledWithExecs",
	"TestKillsAreAnsweredInClientsWords", "TestOOMIsToldBeforeTheExit", "TestExitWhilePaused",
	"TestUpdateChangesTheLimit", "TestHooksRun", "TestEntrypointIsMissing",
	"TestEveryScheme", "TestTerminalHasTheSizeFromBeforeTheStart",
}

// TestCrun runs those tests with crun. Debian's 1.8.1 refuses a hybrid cgroup hierarchy whose
// version 2 part has controllers, so the tests get a mount namespace without that part.
func TestCrun(t *testing.T) {
	if os.Getenv(runtimeVariable) != "" {
		return // we are the copy
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	if testing.Short() {
		t.Skip("runs many tests again")
	}
	if _, err := exec.LookPath("crun"); err != nil {
		t.Skip("crun is not installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("../without-unified", self,
		"-test.v", "-test.run", "^("+strings.Join(withCrun, "|")+")$")
	cmd.Env = append(os.Environ(), binariesVariable+"="+filepath.Dir(shimBinary), runtimeVariable+"=crun")
	var out strings.Builder
	cmd.Stdout = io.MultiWriter(&out, t.Output())
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		t.Fatalf("with crun: %v", err)
	}
	for _, name := range withCrun {
		if !strings.Contains(out.String(), "--- PASS: "+name+" ") {
			t.Errorf("%s did not run with crun", name)
		}
	}
}

package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVariable tells that this process is in the mount namespace of the tests.
const insideVariable = "HOLDFAST_TEST_INSIDE"

// inNamespace is whether it was set when the tests began: actions that they run clean the environment.
var inNamespace = os.Getenv(insideVariable) != ""

// TestMain makes the test binary two things: called containerd-shim-… it is the shim itself, so
// that tests start a real one; else it is the tests, in a mount namespace whose /run is their own,
// since managers up to 2.2 leave no choice of the socket directory.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "containerd-shim-") {
		os.Exit(Main(os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}
	if os.Geteuid() == 0 && !inNamespace {
		os.Exit(runInside())
	}
	if inNamespace {
		if err := ownRun(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot make /run the tests' own:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// runInside runs this binary again in a mount namespace of its own.
func runInside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVariable+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil {
		return 1
	}
	return 0
}

func ownRun() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
}

// inside skips a test that needs root and the namespace.
func inside(t testing.TB) {
	t.Helper()
	if !inNamespace {
		t.Skip("needs root: makes mounts and sockets under /run")
	}
}

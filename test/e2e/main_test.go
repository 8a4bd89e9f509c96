package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// upstream makes the tests use the shims that come with each containerd in place of ours: it
// proves the tests themselves, and shows what they are sharp enough to see. Those of containerd
// 2.4.2 fail where events come out of order or not at all (an exit after the deletion, the last
// event lost when the shim ends), and both leave the socket of a shim that was killed.
var upstream = os.Getenv("E2E_SHIM") == "upstream"

// prebuilt is a directory with our shim and the containerd of go.mod, for machines without Go.
var prebuilt = os.Getenv("HOLDFAST_TEST_BINARIES")

// built is what TestMain made for all tests; it is not changed afterwards.
var built struct {
	shim  string // our shim, as `make build` leaves it
	new   string // directory of the containerd of go.mod, its ctr and its shim
	image string // the image of image_test.go as an archive
}

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("the end-to-end tests need root: they start containerd, mount and make cgroups")
		os.Exit(1)
	}
	code, err := run(m)
	if err != nil {
		fmt.Println("cannot prepare the end-to-end tests:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "holdfast-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-interrupted
		abandon()
		_ = os.RemoveAll(dir)
		os.Exit(130)
	}()

	built.image = filepath.Join(dir, "image.tar")
	if err := writeImage(built.image); err != nil {
		return 0, err
	}
	if prebuilt != "" {
		built.shim, built.new = filepath.Join(prebuilt, "containerd-shim-holdfast-v2"), prebuilt
		return m.Run(), nil
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return 0, err
	}
	if !upstream {
		if _, err := output("make", "-s", "-C", root, "build"); err != nil {
			return 0, err
		}
	}
	built.shim = filepath.Join(root, "bin", "containerd-shim-holdfast-v2")
	if built.new, err = output(filepath.Join(root, "test", "build-containerd")); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// output runs a command and returns what it printed, trimmed; its standard error is ours.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s: %w", cmd, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// patience is how long the tests wait for something that normally takes milliseconds. It is long
// because the machine may be busy; it is spent only when something is wrong. The machines without Go
// are emulated, with two processors that do not exist: containerd alone may take half a minute there.
var patience = map[bool]time.Duration{false: 30 * time.Second, true: 3 * time.Minute}[prebuilt != ""]

// poll calls check until it returns nil, or returns its last error when patience runs out.
func poll(check func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still after %v: %w", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// eventually fails the test unless check returns nil in time.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	if err := poll(check); err != nil {
		t.Fatal(err)
	}
}

// versions calls test once for each containerd, side by side.
func versions(t *testing.T, test func(t *testing.T, version string)) {
	for _, version := range []string{"1.6", "2.4"} {
		t.Run("containerd-"+version, func(t *testing.T) {
			t.Parallel()
			test(t, version)
		})
	}
}

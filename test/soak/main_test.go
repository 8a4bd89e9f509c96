// Package soak throws random operations at a few shims from many clients, valid ones and others,
// while what shims depend on fails at random: the manager goes away, connections are cut, readers
// of streams come and go, loggers and runtimes are killed.
//
// Whatever happens, every answer has to be of an expected kind and in time, what is said of an exit
// has to be the same everywhere, the events have to be in order, every container can be deleted in
// the end, and nothing is left. How long it goes on is told by HOLDFAST_SOAK, a duration.
//
// HOLDFAST_SOAK_SEED repeats a run, as far as that is possible: every client and every vandal makes
// the same choices in the same order. What they meet depends on the machine too.
package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	durationVariable = "HOLDFAST_SOAK"
	seedVariable     = "HOLDFAST_SOAK_SEED"
	briefly          = 5 * time.Second // without the variable: as long as any other test
)

// shimBinary is built once, from the tree under test, with the race detector if the test is.
var shimBinary string

// raceReports begins the names of the files into which shims write the data races that they find.
var raceReports string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shimBinary = filepath.Join(dir, "containerd-shim-holdfast-v2")
	args := []string{"build", "-tags", "no_grpc", "-o", shimBinary}
	if raced {
		args = append(args, "-race")
		raceReports = filepath.Join(dir, "race")
		// For the shims: we have read ours when we were started.
		os.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+raceReports)
		os.Setenv("HOLDFAST_PASS_ENV", "GORACE")
	}
	build := exec.Command("go", append(args, "holdfast/cmd/containerd-shim-holdfast-v2")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the shim: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// noRaces checks that no shim has found a data race. They look as long as they run.
func noRaces(t *testing.T) {
	t.Helper()
	reports, err := filepath.Glob(raceReports + ".*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range reports {
		text, err := os.ReadFile(path)
		t.Errorf("a shim has found data races: %v\n%s", err, text)
	}
}

// duration returns how long to go on.
func duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(durationVariable)
	if text == "" {
		return briefly
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q, want a duration such as 2m", durationVariable, text)
	}
	return d
}

// seed returns what all choices follow from.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedVariable)
	if text == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q, want the number that a run has printed", seedVariable, text)
	}
	return n
}

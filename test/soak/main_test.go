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

// shimBinary is built once, from the tree under test.
var shimBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shimBinary = filepath.Join(dir, "containerd-shim-holdfast-v2")
	build := exec.Command("go", "build", "-tags", "no_grpc", "-o", shimBinary, "holdfast/cmd/containerd-shim-holdfast-v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the shim: %v\n%s", err, out)
		return 1
	}
	return m.Run()
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

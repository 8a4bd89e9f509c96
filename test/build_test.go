package test

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBuildIsReproducible builds the tree here, and again in another directory with nothing in
// Go's cache: the bytes must be the same.
func TestBuildIsReproducible(t *testing.T) {
	here, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(t.TempDir(), "elsewhere")
	for _, part := range []string{"Makefile", "go.mod", "go.sum",
		"cmd", "internal", "oom", "process", "runc", "shim", "stdio"} {
		copyTree(t, filepath.Join(here, part), filepath.Join(there, part))
	}
	first := build(t, here, filepath.Join(t.TempDir(), "first"))
	second := build(t, there, filepath.Join(t.TempDir(), "second"), "GOCACHE="+t.TempDir())
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the programs differ (sha256):\n%s", diff)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-R", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// build builds the tree in dir as the Makefile does, and returns the programs' checksums.
func build(t *testing.T, dir, into string, env ...string) map[string][sha256.Size]byte {
	t.Helper()
	// Without a version, since only one of the directories has a commit.
	cmd := exec.Command("make", "-s", "build", "VERSION=unknown", "BIN="+into)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s in %s: %v\n%s", cmd, dir, err, out)
	}
	programs, err := os.ReadDir(into)
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string][sha256.Size]byte)
	for _, program := range programs {
		data, err := os.ReadFile(filepath.Join(into, program.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[program.Name()] = sha256.Sum256(data)
	}
	if len(sums) != 2 {
		t.Errorf("got %d programs in %s, want the shim and the client", len(sums), into)
	}
	return sums
}

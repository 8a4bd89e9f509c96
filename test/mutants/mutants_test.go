// Package mutants checks the tests: each mutant is a patch of the product that breaks one rule, and
// some test has to notice.
//
// The table of mutants (table_test.go) names the tests that are there for a rule. What a mutant
// replaces has to be in its file exactly once, so the table cannot fall behind the code; that is
// checked always. The rest takes minutes, and is done by `make mutants`, with HOLDFAST_MUTANTS set.
//
// The checkout is not written to: the go command takes the changed file by its -overlay.
package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	variable = "HOLDFAST_MUTANTS"
	// buildLimit bounds the building of one test binary.
	buildLimit = 3 * time.Minute
	// testLimit bounds the tests with a mutant in them: one that makes them hang is caught.
	testLimit = 25 * time.Second
)

// mutant is a change of one file.
type mutant struct {
	breaks   string // the rule
	file     string // from the root of the tree; the tests are beside it
	old, new string
	tests    string // pattern of the tests that notice, and of their subtests after a slash
}

// text returns the file with the change.
func (m mutant) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", m.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		t.Fatalf("%s has this %d times, not once; has the code changed?\n%s", m.file, n, m.old)
	}
	return strings.Replace(string(text), m.old, m.new, 1)
}

func TestMutantsFitTheCode(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.breaks, func(t *testing.T) { m.text(t) })
	}
}

func TestEveryMutantIsCaught(t *testing.T) {
	if os.Getenv(variable) == "" {
		t.Skipf("takes minutes: make mutants, or set %s", variable)
	}
	for _, m := range mutants {
		t.Run(m.breaks, func(t *testing.T) {
			t.Parallel()
			binary := m.build(t)
			out, caught := m.run(t, binary)
			if !caught {
				t.Errorf("survived %s: nothing notices when this is broken: %s\n%s\n%s", m.tests, m.breaks, m.new, out)
			}
		})
	}
}

// build builds the tests with the mutant in the product.
func (m mutant) build(t *testing.T) (binary string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.file): changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{changed: m.text(t), overlay: string(replace)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary = filepath.Join(dir, "mutant.test")
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "no_grpc", "-overlay", overlay, "-o", binary, "./"+filepath.Dir(m.file))
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("a mutant that cannot be built shows nothing: %v\n%s", err, out)
	}
	return binary
}

// scratch returns a directory for what a mutant's tests make, and do not remove if their time is over. Its name is
// short, since sockets are among that.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Log("left behind:", err)
		}
	})
	return dir
}

// run runs the tests, and tells whether they have noticed.
func (m mutant) run(t *testing.T, binary string) (output string, caught bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testLimit)
	defer cancel()
	test, sub, _ := strings.Cut(m.tests, "/")
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^("+test+")$/"+sub, "-test.failfast", fmt.Sprintf("-test.timeout=%v", testLimit))
	cmd.Dir = filepath.Join("../..", filepath.Dir(m.file))
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch(t))
	cmd.WaitDelay = time.Second // for what a test leaves
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out), err != nil
}

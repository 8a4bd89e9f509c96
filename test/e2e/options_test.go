package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// standard is the only runtime name for which ctr passes runtime options on (contract 1.1).
func (c *containerd) standard() runtime { return c.runtimes()[2] }

// TestRuntimeOptions chooses another runtime binary and another root for its state.
func TestRuntimeOptions(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		root := filepath.Join(c.dir, "runc-root")
		script := filepath.Join(c.dir, "my-runc")
		calls := filepath.Join(c.dir, "calls")
		text := "#!/bin/sh\necho \"$@\" >> " + calls + "\nexec runc \"$@\"\n"
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		id, _ := c.detached(t, []string{"--runtime", c.standard().flag,
			"--runc-binary", script, "--runc-root", root}, "sleep", "1000")
		if _, err := os.Stat(filepath.Join(root, c.namespace, id)); err != nil {
			t.Errorf("no state of the container in the root that was asked for: %v", err)
		}
		if got := c.ok(t, "task", "exec", "--exec-id", "e1", id, "echo", "fine"); got != "fine\n" {
			t.Errorf("exec printed %q", got)
		}
		c.remove(t, id)
		got := c.logs(t, "calls", "delete")
		for _, verb := range []string{" create ", " start ", " exec ", " delete "} {
			if !strings.Contains(got, verb) {
				t.Errorf("the binary we chose was never called for%s; its calls:\n%s", verb, got)
			}
		}
		if left, err := os.ReadDir(filepath.Join(root, c.namespace)); err != nil || len(left) > 0 {
			t.Errorf("left in the runtime's root: %v, %v", left, err)
		}
	})
}

// TestMissingRuntime names a runtime binary that does not exist.
func TestMissingRuntime(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		got := c.ctr(t, "run", "--rm", "--runtime", c.standard().flag,
			"--runc-binary", "no-such-runtime", image, c.id(), "true")
		if got.Code == 0 || !strings.Contains(got.Stderr, `"no-such-runtime"`) {
			t.Errorf("got %+v; want a failure that names \"no-such-runtime\"", got)
		}
	})
}

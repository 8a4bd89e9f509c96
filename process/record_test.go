package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A bundle that is used again still told of its first container's end, which the delete action
// reported as that of the second.
func TestNewContainerForgetsTheExitOfAnEarlierOne(t *testing.T) {
	f, err := newFixture(t, func(c *Config) {
		for _, name := range []string{"exit.json", "oom"} {
			if err := os.WriteFile(filepath.Join(c.Bundle, name), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"exit.json", "oom"} {
		if _, err := os.Stat(filepath.Join(f.Bundle(), name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.runtime.die("", 0)
	f.must(t, "")
}

package runc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/test/plant"
)

func TestFilesOfABundleAreReadThroughNoLinkOrFIFO(t *testing.T) {
	for what, put := range plant.Kinds {
		t.Run(what, func(t *testing.T) {
			bundle, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
			if err := os.WriteFile(elsewhere, []byte("17"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"config.json", "init.pid", "log.json"} {
				if err := put(filepath.Join(bundle, name), elsewhere); err != nil {
					t.Fatal(err)
				}
			}
			plant.Soon(t, func() {
				if _, err := ReadSpec(bundle); err == nil || strings.Contains(err.Error(), "number") {
					t.Errorf("config.json: error %v", err)
				}
				if pid, err := readPid(filepath.Join(bundle, "init.pid")); err == nil {
					t.Errorf("pid %d", pid)
				}
				if content, err := (callLog{path: filepath.Join(bundle, "log.json")}).read(); err == nil {
					t.Errorf("log %q", content)
				}
			})
		})
	}
}

// What a command of the runtime has logged is kept in the bundle, or lost.
func TestLogIsKeptThroughNoLinkOrFIFO(t *testing.T) {
	for what, put := range plant.Kinds {
		t.Run(what, func(t *testing.T) {
			r := fake(t, `{"start": {"error": "no start today"}}`)
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			if err := os.WriteFile(elsewhere, []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := put(filepath.Join(r.Bundle, "log.json"), elsewhere); err != nil {
				t.Fatal(err)
			}
			plant.Soon(t, func() {
				if err := r.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no start today") {
					t.Errorf("error %v", err)
				}
			})
			if content, err := os.ReadFile(elsewhere); err != nil || string(content) != "untouched" {
				t.Errorf("the file elsewhere holds %q, %v", content, err)
			}
		})
	}
}

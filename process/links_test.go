package process

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"holdfast/test/plant"
)

// The exit of a container is recorded in its bundle, and in time, whatever is in the place of our
// files by then.
func TestExitIsRecordedThroughNoLinkOrFIFO(t *testing.T) {
	for what, put := range plant.Kinds {
		t.Run(what, func(t *testing.T) {
			f := mustStart(t)
			elsewhere := filepath.Join(t.TempDir(), "elsewhere")
			if err := os.WriteFile(elsewhere, []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			f.addExec(t, "e")
			if _, err := f.Start(t.Context(), "e"); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{ExitFile, ExitFile + ".tmp", "exit.e.json", "exit.e.json.tmp", oomFile} {
				if err := put(filepath.Join(f.Bundle(), name), elsewhere); err != nil {
					t.Fatal(err)
				}
			}
			plant.Soon(t, func() {
				f.killedForMemory("container")
				f.runtime.die("e", 4)
				f.runtime.die("", 3)
				if _, err := f.Wait(t.Context(), ""); err != nil {
					t.Error(err)
				}
			})
			for _, name := range []string{ExitFile, "exit.e.json", oomFile} {
				if info, err := os.Lstat(filepath.Join(f.Bundle(), name)); err != nil || info.Mode() != 0o600 {
					t.Errorf("%s is %v, %v", name, info, err)
				}
			}
			content, err := os.ReadFile(filepath.Join(f.Bundle(), ExitFile))
			var record ExitRecord
			if err := errors.Join(err, json.Unmarshal(content, &record)); err != nil || record.Status != 3 {
				t.Errorf("the record is %q, %v", content, err)
			}
			if content, err := os.ReadFile(elsewhere); err != nil || string(content) != "untouched" {
				t.Errorf("the file elsewhere holds %q, %v", content, err)
			}
			if _, err := os.Lstat(elsewhere + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file was made elsewhere: %v", err)
			}
		})
	}
}

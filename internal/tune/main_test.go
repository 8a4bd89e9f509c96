package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Each change is made where it is expected, and only there.
func TestChangesAreMade(t *testing.T) {
	text := map[string]string{"a.go": "x = 1\ny = 2\nx = 1\n", "b.go": "x = 1\n"}
	read := func(file string) ([]byte, error) { return []byte(text[file]), nil }
	for name, row := range map[string]struct {
		changes []change
		a, b    string // "": not changed
		err     string
	}{
		"one":       {[]change{{"b.go", "x = 1", "x = 3", 1}}, "", "x = 3\n", ""},
		"two":       {[]change{{"a.go", "x = 1", "x = 3", 2}, {"a.go", "y = 2", "y = 4", 1}}, "x = 3\ny = 4\nx = 3\n", "", ""},
		"missing":   {[]change{{"b.go", "z = 1", "z = 3", 1}}, "", "", `runtime/b.go has "z = 1" 0 times, not 1`},
		"too often": {[]change{{"a.go", "x = 1", "x = 3", 1}}, "", "", `runtime/a.go has "x = 1" 2 times, not 1`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := apply(row.changes, read)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("got %v, want %s", err, row.err)
				}
				return
			}
			if err != nil || string(got["a.go"]) != row.a || string(got["b.go"]) != row.b {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// What is stored can be built from, says the same twice, and has another name if anything is another.
func TestFilesAreStoredByContent(t *testing.T) {
	cache := t.TempDir()
	files := map[string][]byte{"a.go": []byte("a"), "b.go": []byte("b")}
	path, err := store(files, "/go/src/runtime", cache)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Replace map[string]string }
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &list); err != nil || len(list.Replace) != 2 {
		t.Fatalf("%s: %v", data, err)
	}
	for name, text := range files {
		if got, err := os.ReadFile(list.Replace["/go/src/runtime/"+name]); err != nil || string(got) != string(text) {
			t.Errorf("%s has %q: %v", name, got, err)
		}
	}
	if again, err := store(files, "/go/src/runtime", cache); err != nil || again != path {
		t.Errorf("again it is %s, %v; not %s", again, err, path)
	}
	files["a.go"] = []byte("c")
	if other, err := store(files, "/go/src/runtime", cache); err != nil || other == path {
		t.Errorf("another content is at %s, too: %v", other, err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "*", ".new-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// The Go that builds here has what the table changes.
func TestGoIsAsExpected(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tune(strings.TrimSpace(string(out)), runtime.Version(), t.TempDir()); err != nil {
		t.Error(err)
	}
}

package runc

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// execLogs returns the files that execs log to.
func execLogs(t *testing.T, r *Runtime) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Bundle, ".exec-*.log.json"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func oneExec(t *testing.T, r *Runtime) error {
	t.Helper()
	child, _, err := r.Exec(t.Context(), ExecConfig{ID: "e1", Process: []byte("{}")})
	if err == nil {
		endWith(t, child)
	}
	return err
}

// A log that an exec has left empty is the next one's, and no other: not one that says something, nor what
// somebody has put in its place.
func TestEmptyLogOfAnExecIsTheNextOnes(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for what, row := range map[string]struct {
		happens func(path string) error
		again   bool
	}{
		"nothing":           {func(string) error { return nil }, true},
		"late words":        {func(path string) error { return os.WriteFile(path, []byte("words"), 0o600) }, false},
		"it is removed":     {os.Remove, false},
		"a link":            {func(path string) error { _ = os.Remove(path); return os.Symlink(elsewhere, path) }, false},
		"it is a directory": {func(path string) error { _ = os.Remove(path); return os.Mkdir(path, 0o700) }, false},
	} {
		t.Run(what, func(t *testing.T) {
			r := fake(t, "{}")
			create(t, r)
			if err := oneExec(t, r); err != nil {
				t.Fatal(err)
			}
			first := execLogs(t, r)
			if len(first) != 1 {
				t.Fatalf("after one exec there are %q", first)
			}
			if err := row.happens(first[0]); err != nil {
				t.Fatal(err)
			}
			if err := oneExec(t, r); err != nil {
				t.Fatal(err)
			}
			second := execLogs(t, r)
			if len(second) != 1 || (second[0] == first[0]) != row.again {
				t.Errorf("first %q, then %q", first, second)
			}
			if _, err := os.Lstat(elsewhere); err == nil {
				t.Error("a file elsewhere was made")
			}
		})
	}
}

func TestLogOfAFailedExecIsNobodyElses(t *testing.T) {
	r := fake(t, `{"exec": {"error": "no"}}`)
	create(t, r)
	if err := oneExec(t, r); err == nil {
		t.Fatal("no error")
	}
	if left := execLogs(t, r); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestSpareLogsAreFew(t *testing.T) {
	dir := t.TempDir()
	var spare spareLogs
	for i := range 2 * maxSpare {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		spare.give(path)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != maxSpare {
		t.Errorf("%d are left, %v", len(files), err)
	}
	spare.drop()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 || spare.take() != "" {
		t.Errorf("%d are left, %v", len(files), err)
	}
}

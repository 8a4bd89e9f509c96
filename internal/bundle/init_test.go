package bundle

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPidsOfInitProcesses(t *testing.T) {
	for content, want := range map[string]int{
		"12": 12, "12\n": 12, " 7 ": 7, "": 0, "x": 0, "-3": 0, "1\x00": 0, "99999999999": 0, strings.Repeat(" ", pidLimit) + "12": 0,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, InitFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := InitPid(dir); got != want {
			t.Errorf("of %q: %d, want %d", content, got, want)
		}
	}
	if got := InitPid(t.TempDir()); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

// The directory of the bundles may have any name.
func TestNeighboursAreThoseInTheSameDirectory(t *testing.T) {
	top := filepath.Join(t.TempDir(), `a[b]*?\`)
	for name, pid := range map[string]string{"c1": "11", "c2": "12", "c3": "", "c4": "14"} {
		if err := os.MkdirAll(filepath.Join(top, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, name, InitFile), []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(top, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := Neighbours(filepath.Join(top, "c2") + "/"); !slices.Equal(got, []int{11, 14}) {
		t.Errorf("neighbours: %v", got)
	}
	if got := Neighbours(filepath.Join(top, "gone", "c2")); got != nil {
		t.Errorf("of none: %v", got)
	}
}

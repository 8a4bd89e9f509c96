package bundle

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// planted puts something into the place of a file, and a file elsewhere.
func planted(t *testing.T) map[string]func(path string) error {
	t.Helper()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if content, err := os.ReadFile(elsewhere); err != nil || string(content) != "untouched" {
			t.Errorf("the file elsewhere has %q, %v", content, err)
		}
	})
	return map[string]func(path string) error{
		"link out":      func(path string) error { return os.Symlink(elsewhere, path) },
		"dangling link": func(path string) error { return os.Symlink(elsewhere+".new", path) },
		"FIFO":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket":        func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	}
}

func TestOnlyFilesOfTheBundleAreOpened(t *testing.T) {
	for what, put := range planted(t) {
		path := filepath.Join(t.TempDir(), "file")
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); err == nil {
			t.Errorf("a %s was opened", what)
			_ = f.Close()
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "link"} {
		f, err := Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if content, err := io.ReadAll(f); err != nil || string(content) != "content" {
			t.Errorf("%s has %q, %v", name, content, err)
		}
		_ = f.Close()
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestFilesAreMadeInThePlaceOfWhatIsThere(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"Make": Make, "Replace": Replace} {
		for what, put := range planted(t) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			for _, p := range []string{path, path + ".tmp"} {
				if err := put(p); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan error)
			go func() { done <- write(path, []byte("content"), 0o644) }()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s over a %s: %v", name, what, err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s over a %s waits for somebody", name, what)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != 0o644 {
				t.Errorf("%s over a %s: %v, %v", name, what, info, err)
			}
			if content, err := os.ReadFile(path); err != nil || string(content) != "content" {
				t.Errorf("%s over a %s: %q, %v", name, what, content, err)
			}
		}
	}
}

func TestWhatCannotBeMadeIsNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.MkdirAll(filepath.Join(path, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if Make(path, nil, 0o600) == nil || Replace(path, nil, 0o600) == nil {
		t.Error("a directory with something in it was replaced")
	}
	if err := Remove(filepath.Join(dir, "none")); err != nil {
		t.Errorf("Remove of nothing: %v", err)
	}
}

package bundle

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/test/plant"
)

// untouched returns the path of a file of somebody else, which is looked at again when the test ends.
func untouched(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(path, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if content, err := os.ReadFile(path); err != nil || string(content) != "untouched" {
			t.Errorf("the file elsewhere has %q, %v", content, err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("elsewhere are %v, %v", files, err)
		}
	})
	return path
}

func TestOnlyFilesOfTheBundleAreOpened(t *testing.T) {
	for what, put := range plant.Kinds {
		path := filepath.Join(t.TempDir(), "file")
		if err := put(path, untouched(t)); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); err == nil {
			t.Errorf("a %s was opened", what)
			_ = f.Close()
		}
		if content, err := ReadFile(path, 100); err == nil {
			t.Errorf("of a %s was read %q", what, content)
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
		for limit, want := range map[int]string{6: "", 7: "content", 100: "content"} {
			if content, err := ReadFile(filepath.Join(dir, name), limit); string(content) != want || (err == nil) != (want != "") {
				t.Errorf("%s, at most %d bytes: %q, %v", name, limit, content, err)
			}
		}
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none"), 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file was read: %v", err)
	}
}

// What is beside a bundle need not be a bundle: the log of a manager, for example, is a FIFO. Open waited
// for somebody to write into it.
func TestBundleThatIsNoDirectoryIsNotWaitedFor(t *testing.T) {
	for what, put := range plant.Kinds {
		path := filepath.Join(t.TempDir(), "bundle")
		if err := put(path, untouched(t)); err != nil {
			t.Fatal(err)
		}
		plant.Soon(t, func() {
			if f, err := Open(filepath.Join(path, "file")); err == nil {
				_ = f.Close()
				t.Errorf("opened a file of a %s", what)
			}
		})
	}
}

func TestFilesAreMadeInThePlaceOfWhatIsThere(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"Make": Make, "Replace": Replace} {
		for what, put := range plant.Kinds {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			for _, p := range []string{path, path + ".tmp"} {
				if err := put(p, untouched(t)); err != nil {
					t.Fatal(err)
				}
			}
			plant.Soon(t, func() {
				if err := write(path, []byte("content"), 0o644); err != nil {
					t.Errorf("%s over a %s: %v", name, what, err)
				}
			})
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

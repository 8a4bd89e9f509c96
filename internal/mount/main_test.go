package mount

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

func TestMain(m *testing.M) {
	if err := reaper.Init(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if root := os.Getenv("MOUNT_TEST_USERNS"); root != "" {
		inUserNamespace(root)
	}
	os.Exit(m.Run())
}

// newRoot returns an empty directory to mount on, and the directory that it is in, which is a
// mount that tells no other of what happens inside. Whatever is left mounted there at the end
// of the test is an error, and gets unmounted.
func newRoot(t *testing.T) (root, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "own")
	mkdir(t, dir)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := listPoints(t, dir); len(left) > 0 && !t.Failed() {
			t.Errorf("left mounted: %v", left)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	propagation(t, dir, unix.MS_PRIVATE)
	root = filepath.Join(dir, "rootfs")
	mkdir(t, root)
	return root, dir
}

// propagation makes the mount at dir private or shared.
func propagation(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := unix.Mount("", dir, "", flags, ""); err != nil {
		t.Fatal(err)
	}
}

// listPoints returns what is mounted at and below dir, without the mount that newRoot makes.
func listPoints(t *testing.T, dir string) []point {
	t.Helper()
	points, err := pointsBelow(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(points) > 0 && filepath.Base(points[0].path) == "own" {
		points = points[1:]
	}
	return points
}

// mountAll is All, and unmounts root at the end of the test, which must succeed.
func mountAll(t *testing.T, root string, mounts ...Mount) {
	t.Helper()
	if err := All(mounts, root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, root) })
}

func unmount(t *testing.T, root string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := Unmount(ctx, root); err != nil {
		t.Error(err)
	}
	if left := listPoints(t, root); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// write creates a file with that content, and the directories above it.
func write(t *testing.T, path, content string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// blockingPipe is a pipe for a program, which does not expect that reads come back empty-handed.
func blockingPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Fd() // makes it blocking
	return r, w
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if string(got) != want {
		t.Errorf("%s contains %q, want %q", path, got, want)
	}
}

func wantAbsent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s exists (%v)", path, err)
	}
}

// tmpfs is a mount that works anywhere.
func tmpfs(target string, options ...string) Mount {
	return Mount{Type: "tmpfs", Source: "tmpfs", Target: target, Options: options}
}

// bind is a bind mount of a directory.
func bind(source, target string, options ...string) Mount {
	return Mount{Type: "bind", Source: source, Target: target, Options: append([]string{"rbind"}, options...)}
}

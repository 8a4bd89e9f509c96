package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

var mapping = []string{"uidmap=0:100000:1000,1000:500000:1", "gidmap=0:200000:65536"}

// wantOwner checks the owner of a file.
func wantOwner(t *testing.T, path string, uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
	} else if st.Uid != uid || st.Gid != gid {
		t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, uid, gid)
	}
}

// mapped is mountAll for mounts that not all kernels and filesystems can do.
func mapped(t *testing.T, root string, mounts ...Mount) {
	t.Helper()
	err := All(mounts, root)
	if errors.Is(err, unix.ENOSYS) || err != nil && strings.Contains(err.Error(), "cannot do that on this kernel") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, root) })
}

func TestMappedBindShowsOtherOwners(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	write(t, filepath.Join(source, "of-root"), "")
	write(t, filepath.Join(source, "of-user"), "")
	if err := os.Chown(filepath.Join(source, "of-user"), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	mapped(t, root, bind(source, "", append(mapping, "ro")...))
	wantOwner(t, filepath.Join(root, "of-root"), 100000, 200000)
	wantOwner(t, filepath.Join(root, "of-user"), 500000, 201000)
	wantOwner(t, filepath.Join(source, "of-user"), 1000, 1000)
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing a read-only mapped mount: %v", err)
	}
	if points := listPoints(t, root); len(points) != 1 {
		t.Errorf("mounted: %v", points)
	}
}

func TestMappedBindTakesMountsBelowAlong(t *testing.T) {
	root, dir := newRoot(t)
	propagation(t, dir, unix.MS_SHARED)
	source := filepath.Join(dir, "source")
	mkdir(t, source)
	mountAll(t, source, tmpfs(""), tmpfs("inner"))
	write(t, filepath.Join(source, "inner/file"), "")
	mapped(t, root, bind(source, "", append(mapping, "rshared")...))
	wantOwner(t, filepath.Join(root, "inner/file"), 100000, 200000)
	if points := listPoints(t, root); len(points) != 2 {
		t.Errorf("mounted: %v", points)
	}
	unmount(t, root)
	if points := listPoints(t, source); len(points) != 2 {
		t.Errorf("mounted on the source: %v", points)
	}
}

func TestMappedTmpfs(t *testing.T) {
	root, _ := newRoot(t)
	mapped(t, root, tmpfs("", append(mapping, "private")...))
	wantOwner(t, root, 100000, 200000)
	if points := listPoints(t, root); len(points) != 1 {
		t.Errorf("mounted: %v", points)
	}
}

func TestMappedOverlayShowsOtherOwners(t *testing.T) {
	root, dir := newRoot(t)
	o := newOverlay(t, dir, 3, "layer")
	if err := os.Chown(filepath.Join(o.lower[1], "file-1"), 7, 7); err != nil {
		t.Fatal(err)
	}
	m := o.mount()
	m.Options = append(m.Options, mapping...)
	mapped(t, root, m)
	wantOwner(t, filepath.Join(root, "file-0"), 100000, 200000)
	wantOwner(t, filepath.Join(root, "file-1"), 100007, 200007)
	write(t, filepath.Join(root, "new"), "content")
	wantContent(t, filepath.Join(o.upper, "new"), "content")
	if points := listPoints(t, dir); len(points) != 1 || points[0].fstype != "overlay" {
		t.Errorf("mounted: %v", points)
	}
}

func TestMappedOverlayOfOneLayerInASubdirectory(t *testing.T) {
	root, dir := newRoot(t)
	propagation(t, dir, unix.MS_SHARED)
	o := newOverlay(t, dir, 1, "layer")
	m := o.mount()
	m.Options = append(m.Options, mapping...)
	m.Options = append(m.Options, "rshared")
	m.Target = "a/b"
	mapped(t, root, tmpfs(""), m)
	wantOwner(t, filepath.Join(root, "a/b/file-0"), 100000, 200000)
	if points := listPoints(t, root); len(points) != 2 {
		t.Errorf("mounted: %v", points)
	}
}

func TestFailedMappedMountsAreUndone(t *testing.T) {
	root, dir := newRoot(t)
	o := newOverlay(t, dir, 2, "layer").mount()
	for name, m := range map[string]Mount{
		"wrong option":     {Type: "overlay", Options: append(o.Options, "nonsense=1")},
		"no layers":        {Type: "overlay", Options: []string{"upperdir=/a"}},
		"nothing common":   {Type: "overlay", Options: []string{"lowerdir=/usr:/etc"}},
		"missing layer":    {Type: "overlay", Options: []string{"lowerdir=" + dir + "/absent/1:" + dir + "/absent/2"}},
		"proc is not able": {Type: "proc", Source: "proc"},
		"overlapping ids":  {Type: "tmpfs", Options: []string{"uidmap=0:0:10,5:5:10", "gidmap=0:0:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if len(m.Options) == 0 || !strings.HasPrefix(m.Options[0], "uidmap") {
				m.Options = append(m.Options[:len(m.Options):len(m.Options)], mapping...)
			}
			err := All([]Mount{tmpfs(""), m}, root)
			if err == nil {
				unmount(t, root)
				t.Fatal("no error")
			}
			if errors.Is(err, os.ErrNotExist) {
				t.Errorf("looks like a missing task: %v", err)
			}
			if left := listPoints(t, dir); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
		})
	}
}

func TestHalfAMappingIsRefused(t *testing.T) {
	root, _ := newRoot(t)
	err := All([]Mount{tmpfs("", "uidmap=0:1:1")}, root)
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("error is %v", err)
	}
}

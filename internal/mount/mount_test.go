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

func TestReadOnlyBindCannotBeWritten(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	write(t, filepath.Join(source, "file"), "content")
	mountAll(t, root, bind(source, "", "ro"))
	wantContent(t, filepath.Join(root, "file"), "content")
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing a read-only bind mount: %v", err)
	}
	write(t, filepath.Join(source, "new"), "through the source")
	wantContent(t, filepath.Join(root, "new"), "through the source")
}

func TestWritableBindCanBeWritten(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	mkdir(t, source)
	mountAll(t, root, bind(source, "", "rw"))
	write(t, filepath.Join(root, "new"), "content")
	wantContent(t, filepath.Join(source, "new"), "content")
}

// Of a bind mount's flags the kernel drops, on remount, those that are not named.
func TestBindKeepsFlagsOfItsSource(t *testing.T) {
	const all = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY
	for _, c := range []struct {
		name    string
		options []string
		want    int64
	}{
		{"as it comes", nil, unix.MS_NOSUID | unix.MS_NODEV},
		{"read-only", []string{"ro"}, unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY},
		{"taken back", []string{"ro", "dev"}, unix.MS_NOSUID | unix.MS_RDONLY},
		{"without ro", []string{"noexec"}, unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"remounted", []string{"ro", "remount"}, 0}, // on an own mount, see below
	} {
		t.Run(c.name, func(t *testing.T) {
			root, dir := newRoot(t)
			source := filepath.Join(dir, "source")
			mkdir(t, source)
			mountAll(t, source, tmpfs("", "nosuid", "nodev"))
			mounts := []Mount{bind(source, "", c.options...)}
			if c.want == 0 {
				c.want = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY
				mounts = []Mount{bind(source, ""), {Type: "bind", Options: []string{"remount", "bind", "ro"}}}
			}
			mountAll(t, root, mounts...)
			var st unix.Statfs_t
			if err := unix.Statfs(root, &st); err != nil {
				t.Fatal(err)
			}
			if got := st.Flags & all; got != c.want {
				t.Errorf("flags are %#x, want %#x", got, c.want)
			}
			if n := len(listPoints(t, root)); n != 1 {
				t.Errorf("%d mounts", n)
			}
		})
	}
}

// Where the source is shared, mounting and unmounting inside a copy of it concerns the source,
// too, unless the copy is a slave.
func TestBindDoesNotTouchItsSource(t *testing.T) {
	for name, bind := range map[string]func(*stack, Mount, *options, *os.File) error{
		"tree": (*stack).bindTree, "old": (*stack).bindOld,
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := newRoot(t)
			propagation(t, dir, unix.MS_SHARED)
			source := filepath.Join(dir, "source")
			mkdir(t, source)
			mountAll(t, source, tmpfs(""), tmpfs("a"), tmpfs("b"))
			s := stack{root: root}
			at := mustOpen(t, root)
			o, err := parseOptions([]string{"rbind"})
			if err != nil {
				t.Fatal(err)
			}
			err = bind(&s, Mount{Source: source}, &o, at)
			at.Close()
			if errors.Is(err, unix.ENOSYS) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := s.mountOn(root, tmpfs("a/c")); err != nil {
				t.Error(err)
			}
			if n := len(listPoints(t, root)); n != 4 {
				t.Errorf("%d mounts in the copy", n)
			}
			mkdir(t, filepath.Join(source, "late"))
			mountAll(t, filepath.Join(source, "late"), tmpfs(""))
			if n := len(listPoints(t, root)); n != 5 {
				t.Errorf("%d mounts in the copy, after another one on the source", n)
			}
			unmount(t, root)
			if left := listPoints(t, source); len(left) != 4 {
				t.Errorf("mounted on the source: %v", left)
			}
		})
	}
}

func TestSharedBindIsAPeerOfItsSource(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	mkdir(t, source)
	mountAll(t, source, tmpfs("", "shared"))
	mountAll(t, root, bind(source, "", "rshared"), tmpfs("a"))
	if n := len(listPoints(t, source)); n != 2 {
		t.Errorf("%d mounts on the source", n)
	}
}

func TestPropagationIsApplied(t *testing.T) {
	for option, want := range map[string]string{
		"shared": " shared:", "private": " - tmpfs", "unbindable": " unbindable ", "rslave": " - tmpfs",
	} {
		t.Run(option, func(t *testing.T) {
			root, _ := newRoot(t)
			mountAll(t, root, tmpfs("", option))
			table, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(table)) {
				if strings.Contains(line, root) && !strings.Contains(line, want) {
					t.Errorf("%q is not in %q", want, line)
				}
			}
		})
	}
}

func TestFilesystemGetsItsOptions(t *testing.T) {
	root, _ := newRoot(t)
	mountAll(t, root, tmpfs("", "size=1m", "mode=0711", "nosuid"))
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	if size := int64(st.Blocks) * st.Bsize; size != 1<<20 {
		t.Errorf("size is %d", size)
	}
	info, err := os.Stat(root)
	if err != nil || info.Mode().Perm() != 0o711 || st.Flags&unix.MS_NOSUID == 0 {
		t.Errorf("mode %v, flags %#x, %v", info.Mode(), st.Flags, err)
	}
}

func TestTargetsAreInsideTheRootfs(t *testing.T) {
	root, _ := newRoot(t)
	mountAll(t, root, tmpfs(""), tmpfs("a", "size=1m"), tmpfs("/a/b/c"), tmpfs("a/b/c/d/"))
	want := []string{"", "/a", "/a/b/c", "/a/b/c/d"}
	points := listPoints(t, root)
	if len(points) != len(want) {
		t.Fatalf("mounted: %v", points)
	}
	for i, p := range points {
		if p.path != root+want[i] {
			t.Errorf("mount %d is on %s, want %s", i, p.path, root+want[i])
		}
	}
}

// A directory that is made in the bundle's own rootfs would be in the way of its removal (T60).
func TestNoDirectoryIsMadeInTheBareRootfs(t *testing.T) {
	root, _ := newRoot(t)
	err := All([]Mount{tmpfs("a")}, root)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	wantAbsent(t, filepath.Join(root, "a"))
}

func TestDirectoryOfTheBareRootfsMayBeATarget(t *testing.T) {
	root, _ := newRoot(t)
	mkdir(t, filepath.Join(root, "a"))
	mountAll(t, root, tmpfs("a"))
}

func TestFileCanBeATarget(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	write(t, filepath.Join(source, "etc/hosts"), "of the image")
	write(t, filepath.Join(dir, "hosts"), "of the host")
	mountAll(t, root, bind(source, ""), bind(filepath.Join(dir, "hosts"), "etc/hosts", "ro"))
	wantContent(t, filepath.Join(root, "etc/hosts"), "of the host")
}

func TestSymlinksDoNotLeadOut(t *testing.T) {
	root, dir := newRoot(t)
	image := filepath.Join(dir, "image")
	outside := filepath.Join(dir, "outside")
	mkdir(t, outside)
	mkdir(t, filepath.Join(image, "real"))
	for name, to := range map[string]string{
		"absolute": outside,
		"dots":     "../../../../../../../../.." + outside,
		"chain":    "dots/..",
		"magic":    "/proc/1/root",
		"relative": "real/../real",
		"inside":   "/real",
		"dangling": "/not/yet",
		"real/abs": "/real",
		"real/up":  "../..",
	} {
		if err := os.Symlink(to, filepath.Join(image, name)); err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string]string{
		"absolute":            outside,
		"dots":                outside,
		"chain/x":             dir + "/x",
		"magic":               "/proc/1/root",
		"relative":            "/real",
		"inside":              "/real",
		"inside/../absolute":  outside,
		"dangling/more":       "/not/yet/more",
		"real/abs/x":          "/real/x",
		"real/up/x":           "/x",
		"../../..":            "",
		"../.." + outside:     outside,
		"real/./..//real":     "/real",
		"/../real/../../real": "/real",
	} {
		t.Run(target, func(t *testing.T) {
			mountAll(t, root, bind(image, ""), tmpfs(target))
			points := listPoints(t, dir)
			if len(points) != 2 || points[1].path != root+want {
				t.Errorf("mounted: %v, want %s", points, root+want)
			}
		})
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside: %v, %v", left, err)
	}
}

func TestEndlessSymlinkIsRefused(t *testing.T) {
	root, dir := newRoot(t)
	image := filepath.Join(dir, "image")
	mkdir(t, image)
	if err := os.Symlink("x/loop", filepath.Join(image, "loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(image, "x")); err != nil {
		t.Fatal(err)
	}
	err := All([]Mount{bind(image, ""), tmpfs("loop")}, root)
	if !errors.Is(err, unix.ELOOP) {
		t.Errorf("error is %v", err)
	}
}

func TestPlaceTooDeepToBeUnmountedIsRefused(t *testing.T) {
	root, dir := newRoot(t)
	deep := strings.Repeat("/"+strings.Repeat("d", 200), unix.PathMax/200+1)
	err := All([]Mount{tmpfs(""), tmpfs(deep)}, root)
	if !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("error is %v", err)
	}
	if left := listPoints(t, dir); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
}

func TestFailureInTheMiddleIsUndone(t *testing.T) {
	for name, flags := range map[string]uintptr{"private": unix.MS_PRIVATE, "shared": unix.MS_SHARED} {
		t.Run(name, func(t *testing.T) {
			root, dir := newRoot(t)
			propagation(t, dir, flags)
			source := filepath.Join(dir, "source")
			mkdir(t, source)
			// What comes along with a recursive bind mount must go, too.
			mountAll(t, source, tmpfs(""), tmpfs("c"), tmpfs("d"), tmpfs("d/e"))
			err := All([]Mount{
				tmpfs(""), tmpfs("a"), tmpfs("a"), bind(source, "a/b", "ro"), bind(source, "a/b/d"),
				{Type: "no-such-filesystem", Source: "none", Target: "a/b/c"},
				tmpfs("never"),
			}, root)
			if err == nil || !strings.Contains(err.Error(), "a/b/c: no such device") {
				t.Errorf("error is %v", err)
			}
			if left := listPoints(t, dir); len(left) != 4 {
				t.Errorf("mounted: %v", left)
			}
			if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
				t.Errorf("left in the rootfs: %v, %v", left, err)
			}
		})
	}
}

func TestUndoLeavesWhatWasThereBefore(t *testing.T) {
	root, _ := newRoot(t)
	mountAll(t, root, tmpfs(""), tmpfs("x"))
	if err := All([]Mount{tmpfs(""), tmpfs("x"), {Type: "none", Options: []string{"X-containerd.a"}}}, root); err == nil {
		t.Error("no error")
	}
	if left := listPoints(t, root); len(left) != 2 {
		t.Errorf("mounted: %v", left)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	root, dir := newRoot(t)
	for _, c := range []struct {
		name  string
		mount Mount
		kind  error
		text  string
	}{
		{"unknown type", Mount{Type: "nofs"}, unix.ENODEV, "load the module"},
		{"missing source", bind(dir+"/absent", ""), nil, "source and all directories"},
		{"not a device", Mount{Type: "ext4", Source: dir}, unix.ENOTBLK, "add the option loop"},
		{"wrong option", tmpfs("", "nonsense=1"), unix.EINVAL, "dmesg"},
		{"long options", tmpfs("", strings.Repeat("x", os.Getpagesize())), errTooLong, "the kernel reads at most"},
		{"not processed", tmpfs("", "X-containerd.mkdir=1"), errdefs.ErrInvalidArgument, "mount manager"},
		{"no image", Mount{Type: "ext4", Source: dir + "/absent", Options: []string{"loop"}}, nil, "image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := All([]Mount{c.mount}, root)
			if err == nil {
				unmount(t, root)
				t.Fatal("no error")
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("%v is not %v", err, c.kind)
			}
			for _, part := range []string{"cannot mount", root, c.text} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not contain %q", err, part)
				}
			}
			if errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "\n") {
				t.Errorf("bad error: %q", err)
			}
		})
	}
}

func TestMissingRootfsIsAnError(t *testing.T) {
	root, _ := newRoot(t)
	if err := All([]Mount{tmpfs("")}, root+"/absent"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	if err := All(nil, root+"/absent"); err != nil {
		t.Errorf("nothing to mount, but: %v", err)
	}
}

func TestRootfsMayBeReachedBySymlink(t *testing.T) {
	root, dir := newRoot(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Dir(root), link); err != nil {
		t.Fatal(err)
	}
	link = filepath.Join(link, filepath.Base(root))
	mountAll(t, link, tmpfs(""), tmpfs("a"))
	if n := len(listPoints(t, root)); n != 2 {
		t.Errorf("%d mounts", n)
	}
	unmount(t, link)
	if n := len(listPoints(t, root)); n != 0 {
		t.Errorf("%d mounts left", n)
	}
}

// A link in the place of the rootfs would have us mount elsewhere, or unmount what others have
// mounted there, the whole host even.
func TestRootfsIsNoSymlink(t *testing.T) {
	root, dir := newRoot(t)
	for _, slash := range []string{"", "/"} {
		link := filepath.Join(dir, "link")
		if err := os.Symlink(root, link); err != nil {
			t.Fatal(err)
		}
		if err := All([]Mount{tmpfs("")}, link+slash); err == nil || !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("mounted, or: %v", err)
		}
		if n := len(listPoints(t, root)); n != 0 {
			t.Errorf("%d mounts elsewhere", n)
		}
		mountAll(t, root, tmpfs(""), tmpfs("a"))
		unmount(t, link+slash)
		if n := len(listPoints(t, root)); n != 2 {
			t.Errorf("%d mounts of others are left, want 2", n)
		}
		unmount(t, root)
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
}

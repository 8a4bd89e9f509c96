package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

func TestUnmountOfNothingSucceeds(t *testing.T) {
	root, dir := newRoot(t)
	for _, path := range []string{root, dir + "/absent", dir + "/absent/rootfs"} {
		if err := Unmount(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	write(t, filepath.Join(dir, "file"), "")
	if err := Unmount(t.Context(), filepath.Join(dir, "file", "rootfs")); err != nil {
		t.Error(err)
	}
}

func TestUnmountTakesStacksApart(t *testing.T) {
	root, dir := newRoot(t)
	// The second one on root covers the first one and what is in it.
	mountAll(t, root, tmpfs(""), tmpfs("a"), tmpfs("a"), tmpfs("a/b"), tmpfs(""), tmpfs("a"), tmpfs(""))
	beside := root + "-beside"
	mkdir(t, beside)
	mountAll(t, beside, tmpfs(""))
	if n := len(listPoints(t, root)); n != 7 {
		t.Fatalf("%d mounts", n)
	}
	unmount(t, root)
	if left := listPoints(t, dir); len(left) != 1 || left[0].path != beside {
		t.Errorf("mounted: %v", left)
	}
}

// visitor is a process whose working directory is dir, until it is told to leave.
func visitor(t *testing.T, dir string) (pid int, leave func()) {
	t.Helper()
	r, w := blockingPipe(t)
	defer r.Close()
	child, err := reaper.Start(&reaper.Command{Path: "cat", Dir: dir, Files: []*os.File{r}, DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	leave = sync.OnceFunc(func() {
		w.Close()
		<-child.Done()
	})
	t.Cleanup(leave)
	return child.Pid(), leave
}

func TestBusyErrorNamesWhoUsesTheMount(t *testing.T) {
	root, _ := newRoot(t)
	mountAll(t, root, tmpfs(""), tmpfs("a"))
	mkdir(t, filepath.Join(root, "a/dir"))
	pid, leave := visitor(t, filepath.Join(root, "a/dir"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := Unmount(ended, root)
	if !errors.Is(err, unix.EBUSY) {
		t.Fatalf("error is %v", err)
	}
	for _, part := range []string{"cannot unmount " + root + ":", fmt.Sprintf("pid %d (cat: working directory)", pid)} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not contain %q", err, part)
		}
	}
	leave()
	file, err := os.Create(filepath.Join(root, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = Unmount(ended, root)
	want := fmt.Sprintf("pid %d (mount.test: descriptor %d)", os.Getpid(), file.Fd())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not contain %q", err, want)
	}
	if n := len(listPoints(t, root)); n != 1 {
		t.Errorf("%d mounts left; only the busy one may stay", n)
	}
}

func TestBusyErrorSuspectsOtherMounts(t *testing.T) {
	root, dir := newRoot(t)
	image := filepath.Join(root, "image")
	mountAll(t, root, tmpfs(""))
	mkdir(t, image)
	other := filepath.Join(dir, "other")
	mkdir(t, other)
	// A loop device holds the file system that its image is on.
	makeImage(t, filepath.Join(image, "file"))
	mountAll(t, other, Mount{Type: "ext4", Source: filepath.Join(image, "file"), Options: []string{"loop"}})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := Unmount(ended, root)
	if err == nil || !strings.Contains(err.Error(), "see whether another mount does") {
		t.Errorf("error is %v", err)
	}
	unmount(t, other)
}

// pauses is a context that tells when somebody waits for its end.
type pauses struct {
	context.Context
	waited func()
}

func (p pauses) Done() <-chan struct{} {
	p.waited()
	return p.Context.Done()
}

func TestUnmountWaitsForTheLastUser(t *testing.T) {
	root, _ := newRoot(t)
	mountAll(t, root, tmpfs(""), tmpfs("a"))
	_, leave := visitor(t, filepath.Join(root, "a"))
	tries := 0
	ctx := pauses{t.Context(), func() {
		if tries++; tries == 3 {
			leave()
		}
	}}
	if err := Unmount(ctx, root); err != nil {
		t.Fatal(err)
	}
	if tries < 3 {
		t.Errorf("tried %d times", tries)
	}
}

func TestUnmountGivesUpInTime(t *testing.T) {
	root, _ := newRoot(t)
	mountAll(t, root, tmpfs(""))
	_, leave := visitor(t, root)
	defer leave()
	tries := 0
	begun := time.Now()
	err := Unmount(pauses{t.Context(), func() { tries++ }}, root)
	if !errors.Is(err, unix.EBUSY) {
		t.Fatalf("error is %v", err)
	}
	if took := time.Since(begun); tries != busyTries || took < busyTries*busyPause {
		t.Errorf("paused %d times in %v", tries, took)
	}
}

func TestUndoOfABusyMountSaysWhatStays(t *testing.T) {
	root, dir := newRoot(t)
	// A program that fails, but leaves somebody behind in the rootfs.
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hold, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	program(t, "mount.fuse", `cd "$2"; cat <`+fifo+` >/dev/null 2>&1 & exit 1`)
	err = All([]Mount{tmpfs(""), tmpfs("a"), tmpfs("b"), {Type: "fuse.x", Target: "a"}}, root)
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{
		"mount.fuse ended with status 1; what had been mounted before it stays: cannot unmount " + root + ": ",
		"(cat: working directory)",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not contain %q", err, part)
		}
	}
	points := listPoints(t, root)
	if len(points) != 2 || points[1].path != root+"/a" {
		t.Errorf("mounted: %v; only what is busy may stay", points)
	}
	hold.Close()
	unmount(t, root)
}

func TestUnmountFindsWhatAKilledMountLeft(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	mkdir(t, source)
	mountAll(t, source, tmpfs(""), tmpfs("1"), tmpfs("2"))
	// As far as a mapped overlay comes before its layers are replaced by it.
	f := mustOpen(t, source)
	tree, err := cloneTree(f, unix.AT_RECURSIVE)
	if errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := stack{root: root}
	at := mustOpen(t, root)
	if err := s.attach(tree, at); err != nil {
		t.Fatal(err)
	}
	tree.Close()
	if n := len(listPoints(t, root)); n != 3 {
		t.Errorf("%d mounts", n)
	}
	unmount(t, root)
}

func TestDeadFUSEIsUnmounted(t *testing.T) {
	root, _ := newRoot(t)
	dead := func(target string) {
		t.Helper()
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		defer dev.Close()
		mountAll(t, root, Mount{Type: "fuse", Source: "dead", Target: target, Options: []string{
			fmt.Sprintf("fd=%d", dev.Fd()), "rootmode=40000", "user_id=0", "group_id=0",
		}})
	}
	dead("")
	if _, err := os.Stat(root); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("not dead: %v", err)
	}
	unmount(t, root)
	mountAll(t, root, tmpfs(""))
	mkdir(t, filepath.Join(root, "a"))
	dead("a")
	unmount(t, root)
}

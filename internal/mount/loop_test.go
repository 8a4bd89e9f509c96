package mount

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// makeImage makes a file with an ext4 filesystem in it.
func makeImage(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	child, err := reaper.Start(&reaper.Command{Path: "mkfs.ext4", Args: []string{"-q", "-F", path}, Env: os.Environ()})
	if err != nil {
		t.Skipf("no ext4 image to mount: %v", err)
	}
	<-child.Done()
	if status := child.Exit().Status; status != 0 {
		t.Fatalf("mkfs.ext4 ended with status %d", status)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip(err)
	}
}

// loopsOf returns the loop devices that image is attached to.
func loopsOf(t *testing.T, image string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool {
		name, err := os.ReadFile(f)
		return err != nil || strings.TrimSpace(string(name)) != image
	})
}

// wantFreed polls, since the kernel frees a loop device a little after its last user.
func wantFreed(t *testing.T, image string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := loopsOf(t, image)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still attached: %v", left)
		}
	}
}

func TestImageIsMountedByLoopDevice(t *testing.T) {
	root, dir := newRoot(t)
	image := filepath.Join(dir, "image")
	makeImage(t, image)
	m := Mount{Type: "ext4", Source: image, Options: []string{"loop", "direct-io"}}
	mountAll(t, root, m)
	write(t, filepath.Join(root, "file"), "content")
	loops := loopsOf(t, image)
	if len(loops) != 1 {
		t.Fatalf("attached to %v", loops)
	}
	wantContent(t, filepath.Join(filepath.Dir(loops[0]), "autoclear"), "1\n")
	wantContent(t, filepath.Join(filepath.Dir(loops[0]), "dio"), "1\n")
	unmount(t, root)
	wantFreed(t, image)

	m.Options = []string{"loop", "ro"}
	mountAll(t, root, m)
	wantContent(t, filepath.Join(root, "file"), "content")
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing a read-only image: %v", err)
	}
	wantContent(t, filepath.Join(filepath.Dir(filepath.Dir(loopsOf(t, image)[0])), "ro"), "1\n")
	unmount(t, root)
	wantFreed(t, image)
}

func TestLoopDeviceIsFreedWhenTheMountFails(t *testing.T) {
	root, dir := newRoot(t)
	image := filepath.Join(dir, "image")
	makeImage(t, image)
	err := All([]Mount{{Type: "ext4", Source: image, Options: []string{"loop", "nonsense"}}}, root)
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("error is %v", err)
	}
	wantFreed(t, image)
}

// What kernels before 5.8 need works on newer ones, too.
func TestLoopDeviceIsConfiguredInSteps(t *testing.T) {
	_, dir := newRoot(t)
	image := filepath.Join(dir, "image")
	makeImage(t, image)
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	// A device that is free at this moment; another process may be faster.
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	info := unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := os.OpenFile("/dev/loop"+string(rune('0'+n)), os.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		err = configureLoop(dev, backing, &info)
		if errors.Is(err, unix.EBUSY) {
			dev.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		magic := make([]byte, 2)
		if _, err := dev.ReadAt(magic, 1024+56); err != nil || !bytes.Equal(magic, []byte{0x53, 0xef}) {
			t.Errorf("no ext4 on the device: %x, %v", magic, err)
		}
		if len(loopsOf(t, image)) != 1 {
			t.Error("not attached")
		}
		dev.Close()
		break
	}
	wantFreed(t, image)
}

func TestFIFOIsNoImage(t *testing.T) {
	root, dir := newRoot(t)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"ro", "rw"} {
		err := All([]Mount{{Type: "ext4", Source: fifo, Options: []string{"loop", mode}}}, root)
		if err == nil || !strings.Contains(err.Error(), fifo) {
			t.Errorf("error is %v", err)
		}
	}
}

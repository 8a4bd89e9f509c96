package mount

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// program puts a shell script of that name at the front of PATH.
func program(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestFUSETypesAreMountedByTheirProgram(t *testing.T) {
	for fstype, helper := range map[string]string{"fuse.thing": "mount.fuse", "fuse3.thing.x": "mount.fuse3"} {
		t.Run(fstype, func(t *testing.T) {
			root, dir := newRoot(t)
			log := filepath.Join(dir, "arguments")
			program(t, helper, `echo "$@" >`+log+`; mount -t tmpfs "$1" "$2"`)
			mountAll(t, root, tmpfs(""), Mount{
				Type: fstype, Source: "source", Target: "a",
				Options: []string{"ro", "allow_other", "slave"},
			})
			_, name, _ := strings.Cut(fstype, ".")
			wantContent(t, log, "source "+root+"/a -o ro -o allow_other -t "+name+"\n")
			if n := len(listPoints(t, root)); n != 2 {
				t.Errorf("%d mounts", n)
			}
		})
	}
}

func TestFUSEProgramThatFails(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"at once", "echo first; echo 'no such thing' >&2; exit 3", "mount.fuse ended with status 3: no such thing"},
		{"after it has mounted", `mount -t tmpfs x "$2"; exit 1`, "mount.fuse ended with status 1"},
		{"but says it succeeded", "exit 0", "nothing is mounted"},
		{"by a signal", "kill -KILL $$", "status 137"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, dir := newRoot(t)
			program(t, "mount.fuse", c.script)
			err := All([]Mount{tmpfs(""), {Type: "fuse.x", Source: "x"}}, root)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v", err)
			}
			if left := listPoints(t, dir); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
		})
	}
}

func TestHelperThatHangsIsKilledWithItsChildren(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the group is looked for in the processes of all")
	}
	r, w := blockingPipe(t)
	defer r.Close()
	defer w.Close()
	child, err := reaper.Start(&reaper.Command{
		Path: "/bin/sh", Args: []string{"-c", "cat & cat <&3; wait"}, Env: os.Environ(), Files: []*os.File{r, nil, nil, r},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = await(child, time.Millisecond)
	if err == nil || err.Error() != "took more than 1ms and was killed" {
		t.Errorf("error is %v", err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := unix.Kill(-child.Pid(), 0)
		if errors.Is(err, unix.ESRCH) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("its children live on: %v", err)
		}
	}
}

func TestMissingFUSEProgramIsNamed(t *testing.T) {
	root, _ := newRoot(t)
	t.Setenv("PATH", "/nowhere")
	err := All([]Mount{{Type: "fuse3.x", Source: "x"}}, root)
	if err == nil || !strings.Contains(err.Error(), `"mount.fuse3"`) {
		t.Errorf("error is %v", err)
	}
}

// An ordinary user may not unmount, but fusermount may do it for him.
func TestFUSEIsUnmountedByFusermountWhenWeMayNot(t *testing.T) {
	root, _ := newRoot(t)
	for _, name := range []string{"fusermount3", "fusermount"} {
		mountAll(t, root, tmpfs(""))
		program(t, "fusermount3", "exit 1")
		program(t, name, `test "$1" = -u && umount "$2"`)
		withoutAdmin(t, func() {
			err := point{path: root, fstype: "tmpfs"}.unmount()
			if !errors.Is(err, unix.EPERM) {
				t.Fatalf("error is %v", err)
			}
			if err := (point{path: root, fstype: "fuse.x"}).unmount(); err != nil {
				t.Error(err)
			}
		})
		if left := listPoints(t, root); len(left) > 0 {
			t.Errorf("%s left mounted: %v", name, left)
		}
	}
}

// withoutAdmin runs f on a thread that has put down CAP_SYS_ADMIN. Programs that it starts have
// it again, as anything that root starts.
func withoutAdmin(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, some [2]unix.CapUserData
	if err := unix.Capget(&header, &all[0]); err != nil {
		t.Fatal(err)
	}
	some = all
	some[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&header, &some[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

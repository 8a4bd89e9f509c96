package reaper

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func oneToOne(size int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: size}}
}

// makeNamespace skips the test where an administrator does not want user namespaces.
func makeNamespace(t *testing.T) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may map more than its own id")
	}
	ns, err := UserNamespace(oneToOne(65536), oneToOne(65536))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestUserNamespaceIsANewOne(t *testing.T) {
	one, two := makeNamespace(t), makeNamespace(t)
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if inode(t, one) == inode(t, two) || inode(t, one) == inode(t, own) {
		t.Error("one namespace twice")
	}
	kind, err := unix.IoctlRetInt(int(one.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWUSER {
		t.Errorf("kind is %#x, %v", kind, err)
	}
	parent, err := unix.IoctlRetInt(int(one.Fd()), unix.NS_GET_PARENT)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(parent), "parent")
	defer f.Close()
	if inode(t, f) != inode(t, own) {
		t.Error("it is not a child of our own")
	}
}

// Its process is reaped by name, so it is nobody's orphan, and ours keep their exits.
func TestUserNamespacesLeaveNoProcess(t *testing.T) {
	makeNamespace(t)
	before := Orphans()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 4 {
				ns, err := UserNamespace(oneToOne(1), oneToOne(1))
				if err != nil {
					t.Error(err)
					return
				}
				ns.Close()
				c, err := Start(&Command{Path: "sh", Args: []string{"-c", "exit 7"}})
				if err != nil {
					t.Error(err)
					return
				}
				if <-c.Done(); c.Exit().Status != 7 {
					t.Errorf("exit is %+v", c.Exit())
				}
			}
		})
	}
	group.Wait()
	if n := Orphans() - before; n != 0 {
		t.Errorf("%d orphans", n)
	}
}

func TestWrongMapsAreRefused(t *testing.T) {
	makeNamespace(t)
	twice := append(oneToOne(10), oneToOne(10)...)
	if ns, err := UserNamespace(twice, oneToOne(1)); err == nil {
		ns.Close()
		t.Error("no error")
	}
}

// What UserNamespace rests on.
func TestZombieStillHasItsUserNamespace(t *testing.T) {
	makeNamespace(t)
	_, err := Adopt(func() (int, error) {
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"userns", "-test.run=^$"}, &syscall.ProcAttr{
			Env: []string{"REAPER_TEST_ROLE=child", "GORACE=atexit_sleep_ms=0"},
			Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: oneToOne(1), GidMappings: oneToOne(1)},
		})
		if err != nil {
			return 0, err
		}
		var info [128]byte // siginfo; WNOWAIT leaves the zombie
		if _, _, errno := syscall.Syscall6(syscall.SYS_WAITID, unix.P_PID, uintptr(pid),
			uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT, 0, 0); errno != 0 {
			return 0, errno
		}
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
		if err != nil {
			return 0, err
		}
		defer ns.Close()
		kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
		if err == nil && kind != unix.CLONE_NEWUSER {
			err = fmt.Errorf("kind is %#x", kind)
		}
		return pid, err
	})
	if err != nil {
		t.Error(err)
	}
}

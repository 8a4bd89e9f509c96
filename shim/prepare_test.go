package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/internal/api"
)

// TestShimCgroup puts the daemon where the options say, in each hierarchy that has the cgroup.
func TestShimCgroup(t *testing.T) {
	for _, version := range []string{"1.7", "2.4"} {
		t.Run(version, func(t *testing.T) {
			m := newManager(t, version)
			name := fmt.Sprintf("/holdfast-test-%d-%s", os.Getpid(), version)
			made := makeCgroups(t, name)
			m.bundle("c1", nil)
			pid := daemonOf(t, m.mustStart("c1", pack(&api.Options{ShimCgroup: name})))
			inside := strings.Count(readText(t, fmt.Sprintf("/proc/%d/cgroup", pid)), ":"+name+"\n")
			if inside != made {
				t.Errorf("the daemon is in %d of %d cgroups", inside, made)
			}
			m.endDaemons()
		})
	}
}

// makeCgroups makes a cgroup in every hierarchy and returns how many there are.
func makeCgroups(t *testing.T, name string) (made int) {
	t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	if exists("/sys/fs/cgroup/cgroup.controllers") {
		dirs = []string{"/sys/fs/cgroup/cgroup.procs"}
	}
	for _, procs := range dirs {
		dir := filepath.Join(filepath.Dir(procs), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skip("cannot make cgroups here: ", err)
		}
		t.Cleanup(func() {
			eventually(t, "cgroup is removed", func() bool {
				err := unix.Rmdir(dir)
				return err == nil || errors.Is(err, unix.ENOENT)
			})
		})
		// A cpuset without processors takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if text, err := os.ReadFile(filepath.Join(filepath.Dir(procs), file)); err == nil {
				writeText(t, filepath.Join(dir, file), string(text))
			}
		}
		made++
	}
	return made
}

func TestCoreSchedulingCookie(t *testing.T) {
	m := newManager(t, "2.4")
	m.env = append(m.env, "SCHED_CORE=1")
	m.bundle("c1", nil)
	r := m.start("c1", nil)
	if r.code != 0 {
		if !strings.Contains(string(r.stderr), "cannot enable core scheduling") {
			t.Errorf("stderr is %q", r.stderr)
		}
		t.Skip("this kernel or machine has no core scheduling")
	}
	socket, _ := m.parse(r)
	cookie := func(pid int) (c uint64) {
		if err := getCookie(pid, &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if got, ours := cookie(daemonOf(t, socket)), cookie(os.Getpid()); got == ours || got == 0 {
		t.Errorf("the daemon's cookie is %x, ours %x", got, ours)
	}
}

func TestDescriptorsAreSealedOnOldKernelsToo(t *testing.T) {
	for name, seal := range map[string]func() error{"range": sealDescriptors, "each": sealEach} {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := seal(); err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: flags are %x, %v", name, flags, err)
		}
	}
}

package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeftProcessesAreKilledWithProof has a process that the runtime leaves alive, in the cgroup
// that the spec names and in another one.
func TestLeftProcessesAreKilledWithProof(t *testing.T) {
	for name, c := range map[string]struct {
		spec string // cgroupsPath, %s being the name of the cgroup
		dies bool
	}{
		"cgroup of the spec": {"%s", true},
		"another cgroup":     {"/other%s", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, "2.4")
			bundle := m.bundle("c1", nil)
			group := fmt.Sprintf("/holdfast-left-%d-%v", os.Getpid(), c.dies)
			makeCgroups(t, group)
			m.spec("c1", fmt.Sprintf(c.spec, group), nil)
			victim := exec.Command("sleep", "60")
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			died := make(chan error, 1)
			go func() { died <- victim.Wait() }()
			enterCgroups(t, group, victim.Process.Pid)
			writeText(t, filepath.Join(bundle, "init.pid"), strconv.Itoa(victim.Process.Pid))
			o, _ := noted(t, "exit 0")
			m.save("c1", o)
			since := time.Now()
			answer, complaint := m.mustDelete("c1")
			checkKilled(t, answer, uint32(victim.Process.Pid), since)
			if complaint != "" {
				t.Errorf("complained %q", complaint)
			}
			if alive := unix.Kill(victim.Process.Pid, 0) == nil; alive == c.dies {
				t.Errorf("the process is alive: %v", alive)
			}
			_ = victim.Process.Kill() // it may be dead
			<-died
		})
	}
}

// A process that a killed runtime has left in the cgroup of the spec, of which no pid is recorded, is killed
// if it works in the root filesystem of the container, and nobody else is.
func TestHalfMadeContainerIsKilledWithProof(t *testing.T) {
	for name, c := range map[string]struct {
		at   func(bundle string) string
		dies bool
	}{
		"in the root filesystem": {func(bundle string) string { return filepath.Join(bundle, rootfs) }, true},
		"below it":               {func(bundle string) string { return filepath.Join(bundle, rootfs, "below") }, false},
		"in the bundle":          {func(bundle string) string { return bundle }, false},
		"elsewhere":              {func(string) string { return "/" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, "2.4")
			bundle := m.bundle("c1", nil)
			group := fmt.Sprintf("/holdfast-left-%d-half", os.Getpid())
			makeCgroups(t, group)
			m.spec("c1", group, nil)
			if err := os.MkdirAll(filepath.Join(bundle, rootfs, "below"), 0o700); err != nil {
				t.Fatal(err)
			}
			victim := exec.Command("sleep", "60")
			victim.Dir = c.at(bundle)
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			died := make(chan error, 1)
			go func() { died <- victim.Wait() }()
			enterCgroups(t, group, victim.Process.Pid)
			o, _ := noted(t, "exit 0")
			m.save("c1", o)
			_, complaint := m.mustDelete("c1")
			if alive := unix.Kill(victim.Process.Pid, 0) == nil; alive == c.dies {
				t.Errorf("the process is alive: %v", alive)
			}
			named := strings.Contains(complaint, fmt.Sprintf("pids [%d] are in it", victim.Process.Pid))
			if named == c.dies {
				t.Errorf("complained %q", complaint)
			}
			_ = victim.Process.Kill() // it may be dead
			<-died
		})
	}
}

// Containers may share their cgroup. The end of one of them is not that of another one that lives there.
func TestNeighbourInTheSameCgroupLivesOn(t *testing.T) {
	m := newManager(t, "2.4")
	group := fmt.Sprintf("/holdfast-left-%d-shared", os.Getpid())
	makeCgroups(t, group)
	var inits []*exec.Cmd
	var died []chan error
	for _, id := range []string{"c1", "c2"} {
		bundle := m.bundle(id, nil)
		m.spec(id, group, nil)
		init := exec.Command("sleep", "60")
		if err := init.Start(); err != nil {
			t.Fatal(err)
		}
		dead := make(chan error, 1)
		go func() { dead <- init.Wait() }()
		inits, died = append(inits, init), append(died, dead)
		enterCgroups(t, group, init.Process.Pid)
		writeText(t, filepath.Join(bundle, "init.pid"), strconv.Itoa(init.Process.Pid))
	}
	o, _ := noted(t, "exit 0")
	m.save("c1", o)
	if _, complaint := m.mustDelete("c1"); complaint != "" {
		t.Errorf("complained %q", complaint)
	}
	if err := <-died[0]; err == nil {
		t.Error("the container's process has ended by itself")
	}
	if err := unix.Kill(inits[1].Process.Pid, 0); err != nil {
		t.Errorf("the neighbour: %v", err)
	}
	_ = inits[1].Process.Kill() // it may be dead
	<-died[1]
}

func enterCgroups(t *testing.T, name string, pid int) {
	t.Helper()
	files, err := filepath.Glob("/sys/fs/cgroup/*" + name + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	if direct := "/sys/fs/cgroup" + name + "/cgroup.procs"; exists(direct) {
		files = append(files, direct)
	}
	for _, file := range files {
		if err := overwrite(file, strconv.Itoa(pid)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProofByCgroupNames(t *testing.T) {
	for _, c := range []struct {
		path, id, lines string
		want            bool
	}{
		{"/k/pod/c1", "c1", "0::/k/pod/c1\n", true},
		{"/k/pod/c1", "c1", "0::/k/pod/c1/init.scope\n", true},
		{"/k/pod/c1", "c1", "0::/k/pod/c12\n", false},
		{"/k/pod/c1", "c1", "0::/\n", false},
		{"system.slice:docker:c1", "c1", "0::/system.slice/docker-c1.scope\n", true},
		{"s:p:x.slice", "c1", "0::/s/x.slice\n", true},
		{"::c1", "c1", "0::/system.slice/c1.scope\n", true},
		{"", "c1", "0::/c1\n", true},
		{"", "c1", "0::/user.slice\n", false},
		{"/", "c1", "0::/\n", false},
		{"/k/c1", "c1", "5:memory:/k/c1\n4:pids:/k/c1\n1:name=systemd:/x\n0::/\n", true},
		{"/k/c1", "c1", "5:memory:/k/c1\n4:pids:/\n0::/k/c1\n", false},
		{"k/c1", "c1", "5:memory:/docker/outer/k/c1\n", true},
		{"/k/c1", "c1", "", false},
		{"/k/c1", "c1", "garbage\n", false},
	} {
		if got := isInside(c.lines, cgroupName(c.path, c.id)); got != c.want {
			t.Errorf("%q %q in %q: %v", c.path, c.id, c.lines, got)
		}
	}
}

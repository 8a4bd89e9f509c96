package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// sandbox is a group made for a test, in all hierarchies of the host or in that of version 2 only.
type sandbox struct {
	t    testing.TB
	name string
	v2   bool              // version 2 only; it may have no controllers, as on a hybrid host
	dirs map[string]string // by mount point; by "" in version 2
	made []string          // all groups, in the order in which they were made
}

var sandboxes atomic.Int32

// onEach runs a test with a sandbox in all hierarchies, and with one in version 2 only.
func onEach(t *testing.T, test func(t *testing.T, s *sandbox)) {
	t.Helper()
	for _, v2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "host", true: "v2"}[v2], func(t *testing.T) { test(t, newSandbox(t, v2)) })
	}
}

func newSandbox(t testing.TB, v2 bool) *sandbox {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes cgroups: needs root")
	}
	s := &sandbox{
		t: t, v2: v2, name: fmt.Sprintf("holdfast-cgroup-%d-%d", os.Getpid(), sandboxes.Add(1)),
		dirs: map[string]string{},
	}
	t.Cleanup(s.remove)
	for _, m := range mountsHere(t) {
		if m.root != "/" || v2 && !m.unified {
			continue
		}
		key := m.point
		if m.unified {
			key = ""
		}
		s.dirs[key] = filepath.Join(m.point, s.name)
		s.mkdir(s.dirs[key])
		inheritCpuset(t, s.dirs[key])
	}
	if len(s.dirs) == 0 {
		t.Skip("no cgroup hierarchy to make groups in")
	}
	if _, ok := s.dirs[""]; v2 && !ok {
		t.Skip("no cgroup2 is mounted here")
	}
	return s
}

func mountsHere(t testing.TB) []mount {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return parseMounts(b)
}

// inheritCpuset makes a version 1 cpuset usable, which starts without CPUs.
func inheritCpuset(t testing.TB, dir string) {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err == nil {
			write(t, filepath.Join(dir, name), strings.TrimSpace(string(b)))
		}
	}
}

// mkdir makes a group that is removed at the end of the test.
func (s *sandbox) mkdir(dir string) string {
	s.t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.made = append(s.made, dir)
	return dir
}

// remove kills what a failed test has left behind and removes the groups.
func (s *sandbox) remove() {
	for _, dir := range slices.Backward(s.made) {
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // it may have been removed
		for _, pid := range parsePids(b) {
			s.t.Logf("killing process %d, left in %s", pid, dir)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		rmdir(s.t, dir)
	}
}

func rmdir(t testing.TB, dir string) {
	t.Helper()
	eventually(t, "remove "+dir, func() bool {
		err := os.Remove(dir)
		return err == nil || errors.Is(err, os.ErrNotExist)
	})
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func write(t testing.TB, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// join moves a process into the sandbox.
func (s *sandbox) join(pid int) {
	s.t.Helper()
	for _, dir := range s.dirs {
		write(s.t, filepath.Join(dir, "cgroup.procs"), fmt.Sprint(pid))
	}
}

// of finds the group of a process that is in the sandbox.
func (s *sandbox) of(pid int) *Group {
	s.t.Helper()
	g, err := Of(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.v2 {
		g = &Group{unified: true, v2: g.v2}
	}
	return g
}

// freezer returns the directory where the sandbox can be frozen, and how.
func (s *sandbox) freezer(g *Group) (dir string, f freezer) {
	s.t.Helper()
	p, err := g.home()
	if err != nil {
		s.t.Fatal(err)
	}
	f, ok := p.freezer()
	if !ok {
		s.t.Skip("no freezer on this host")
	}
	return p.dir, f
}

// process is a program that a test runs.
type process struct {
	*exec.Cmd
	stdin io.WriteCloser
	done  chan struct{}
}

// spawn starts a shell script outside of any sandbox. It waits for a line before it begins.
func spawn(t testing.TB, script string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command("sh", "-c", "read go; "+script), done: make(chan struct{})}
	var err error
	if p.stdin, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); _ = p.Wait() }() // ends with the process, which the cleanup kills
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) goOn(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
}

// run starts a shell script in the sandbox.
func (s *sandbox) run(script string) *process {
	s.t.Helper()
	p := spawn(s.t, script)
	s.join(p.Process.Pid)
	p.goOn(s.t)
	return p
}

// pids lists a group and must not fail.
func pids(t testing.TB, g *Group) []int {
	t.Helper()
	all, err := g.Pids()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// awaitProcesses waits until at least n processes are in the group.
func awaitProcesses(t testing.TB, g *Group, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d processes", n), func() bool { return len(pids(t, g)) >= n })
}

// alive tells whether the process exists and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// ourHome returns the file through which we can be moved back to where we are now.
func ourHome(t testing.TB, p *place) string {
	t.Helper()
	ours, err := memberships("self")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(ours, func(m membership) bool {
		return m.unified == p.unified && (m.unified || m.controllers[0] == p.controllers[0])
	})
	if i < 0 {
		t.Fatalf("we have no group in the hierarchy of %s", p.dir)
	}
	return filepath.Join(p.point, ours[i].path, "cgroup.procs")
}

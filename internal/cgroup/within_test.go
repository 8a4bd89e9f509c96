package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"holdfast/internal/api/stats1"
	"holdfast/internal/api/stats2"
)

// nobody is a user without any privilege.
const nobody = 65534

// TestWorkWithoutTheWholeHost has all that the package does done by a program that sees or may do but
// a part of what the host has: in a cgroup namespace, as a containerd in a container is, and as a
// user to whom a group was delegated, as a rootless one.
func TestWorkWithoutTheWholeHost(t *testing.T) {
	for _, row := range []struct{ name, command string }{
		{"namespace", "unshare --cgroup --mount --propagation private"},
		{"delegated", fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups", nobody, nobody)},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSandbox(t, false)
			if row.name == "delegated" {
				s.delegate()
			}
			out := filepath.Join(t.TempDir(), "out")
			p := s.run(fmt.Sprintf("exec env HOLDFAST_WITHIN=%s GORACE=atexit_sleep_ms=0 %s %s >%s 2>&1",
				s.name, row.command, program(t), out))
			<-p.done
			if said := read(t, out); said != "" || !p.ProcessState.Success() {
				t.Errorf("%v: %s", p.ProcessState, said)
			}
		})
	}
}

// delegate gives the groups to nobody (cgroups(7), "Cgroups delegation: delegating a hierarchy to a
// less privileged user").
func (s *sandbox) delegate() {
	s.t.Helper()
	for _, dir := range s.dirs {
		for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"} {
			err := os.Chown(filepath.Join(dir, name), nobody, nobody)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.t.Fatal(err)
			}
		}
	}
}

// program copies this program to where everybody may run it.
func program(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cgroup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	content, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "within")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, content, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// workWithin makes a group of its own in all hierarchies, with a process in it, and works on that.
// Name is that of the group that it is in itself, as seen from outside.
func workWithin(name string) error {
	dirs, err := dirsWithin(name)
	if err != nil {
		return err
	}
	p := exec.Command("sleep", "1000")
	if err := p.Start(); err != nil {
		return err
	}
	defer func() {
		_ = p.Process.Kill()
		_ = p.Wait()
		for _, dir := range dirs {
			_ = os.Remove(dir) // the test notices if it is still there
		}
	}()
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err == nil {
				_ = os.WriteFile(filepath.Join(dir, file), b, 0) // the next write fails if need be
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, p.Process.Pid), 0); err != nil {
			return err
		}
	}
	g, err := Of(p.Process.Pid)
	if err != nil {
		return err
	}
	return use(g, p)
}

// dirsWithin returns where groups can be made. In a namespace it mounts the hierarchies anew first,
// so that they begin at its root.
func dirsWithin(name string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	ours, err := memberships("self")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range parseMounts(b) {
		i := slices.IndexFunc(ours, m.carries)
		if i < 0 {
			continue
		}
		if ours[i].path == "/" {
			kind, options := "cgroup2", ""
			if !m.unified {
				kind, options = "cgroup", strings.Join(ours[i].controllers, ",")
			}
			if strings.HasPrefix(options, "name=") {
				options = "none," + options
			}
			// Nothing can be mounted on itself.
			if err := syscall.Unmount(m.point, syscall.MNT_DETACH); err != nil {
				return nil, fmt.Errorf("unmount %s: %w", m.point, err)
			}
			if err := syscall.Mount("cgroup", m.point, kind, 0, options); err != nil {
				return nil, fmt.Errorf("mount %s at %s: %w", options, m.point, err)
			}
		} else if !strings.HasSuffix(ours[i].path, name) {
			return nil, fmt.Errorf("we are in %s, not in %s", ours[i].path, name)
		}
		dirs = append(dirs, filepath.Join(m.point, ours[i].path, "c1"))
	}
	return dirs, nil
}

// use does with a group, which has but one process, what the package is for.
func use(g *Group, p *exec.Cmd) error {
	if got, err := g.Pids(); err != nil || !slices.Equal(got, []int{p.Process.Pid}) {
		return fmt.Errorf("pids %v, %w; want %d", got, err, p.Process.Pid)
	}
	for range 3 {
		m, err := g.Stats()
		if err != nil {
			return fmt.Errorf("stats: %w", err)
		}
		switch m := m.(type) {
		case *stats1.Metrics:
			if m.Pids == nil || m.Pids.Current != 1 || m.Memory == nil {
				return fmt.Errorf("stats are %v", m)
			}
		case *stats2.Metrics: // without controllers: the group above has processes
			if m.CPU == nil {
				return fmt.Errorf("stats are %v", m)
			}
		}
	}
	home, err := g.home()
	if err != nil {
		return err
	}
	if f, ok := home.freezer(); ok {
		if err := os.WriteFile(filepath.Join(home.dir, f.file), []byte(f.freeze), 0); err != nil {
			return err
		}
		if err := g.Thaw(); err != nil {
			return err
		}
	}
	if err := g.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = p.Wait()
	if !p.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		return fmt.Errorf("the process ended with %v", p.ProcessState)
	}
	return nil
}

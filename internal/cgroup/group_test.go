package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"holdfast/internal/api/stats1"
	"holdfast/internal/api/stats2"
)

const tens = "i=0; while [ $i -lt 10 ]; do sleep 1000 & i=$((i+1)); done; wait"

func TestOfFindsTheGroupsOfTheContainer(t *testing.T) {
	s := newSandbox(t, false)
	g := s.of(s.run("exec sleep 1000").Process.Pid)
	for _, p := range append(slices.Clone(g.v1), g.v2) {
		if p == nil {
			continue
		}
		if filepath.Base(p.dir) != s.name || !p.own {
			t.Errorf("%s, own %v", p.dir, p.own)
		}
	}
	dir, unified, ok := g.Memory()
	if !ok || unified != g.Unified() || filepath.Base(dir) != s.name {
		t.Errorf("memory in %q, unified %v, %v", dir, unified, ok)
	}
}

func TestOfAProcessThatIsNoneIsGone(t *testing.T) {
	p := spawn(t, "exit 0")
	p.goOn(t)
	<-p.done
	if _, err := Of(p.Process.Pid); !errors.Is(err, ErrGone) || !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

// A container without a cgroup of its own, as rootless ones may be, is where we are: what is asked
// for would hit everybody.
func TestAContainerWithoutItsOwnGroupIsRefused(t *testing.T) {
	p := spawn(t, "exec sleep 1000")
	p.goOn(t)
	g, err := Of(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := g.Pids()
	for what, err := range map[string]error{
		"Signal": g.Signal(syscall.SIGTERM), "kill": g.Signal(syscall.SIGKILL), "Thaw": g.Thaw(), "Pids": err1,
	} {
		if !errors.Is(err, ErrShared) || !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := g.Stats(); !errors.Is(err, ErrGone) {
		t.Errorf("Stats: %v", err)
	}
	if _, _, ok := g.Memory(); ok {
		t.Error("it has a memory group")
	}
	if err := g.EnableControllers(); err != nil {
		t.Error(err)
	}
	if !alive(p.Process.Pid) {
		t.Error("it was killed")
	}
}

// A session may have a memory group, and be in the root otherwise. What it runs is not a container.
func TestAContainerWithOneGroupOfItsOwnIsRefused(t *testing.T) {
	s := newSandbox(t, false)
	if len(s.dirs) == 1 {
		t.Skip("there is only one hierarchy")
	}
	for dir := range s.dirs {
		p := spawn(t, "exec sleep 1000")
		write(t, filepath.Join(s.dirs[dir], "cgroup.procs"), fmt.Sprint(p.Process.Pid))
		p.goOn(t)
		g := s.of(p.Process.Pid)
		if g.Unified() {
			t.Skip("it is not a controller that the version 1 hierarchies are for")
		}
		_, err1 := g.Pids()
		for what, err := range map[string]error{"Signal": g.Signal(syscall.SIGKILL), "Thaw": g.Thaw(), "Pids": err1} {
			if !errors.Is(err, ErrShared) {
				t.Errorf("in %s: %s: %v", dir, what, err)
			}
		}
		if !alive(p.Process.Pid) {
			t.Errorf("in %s: it was killed", dir)
		}
	}
}

// A group name may be used again, by the next container of that name. It is not the same group.
func TestAGroupThatHasGoneStaysGone(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		first := s.run("exec sleep 1000")
		g := s.of(first.Process.Pid)
		for range 3 {
			statsOf(t, g) // from now on with open files
		}
		_ = first.Process.Kill()
		<-first.done
		for _, dir := range s.dirs {
			rmdir(t, dir)
		}
		check := func(when string) {
			t.Helper()
			_, err1 := g.Stats()
			_, err2 := g.Pids()
			for what, err := range map[string]error{"Stats": err1, "Pids": err2, "Signal": g.Signal(syscall.SIGKILL), "Thaw": g.Thaw()} {
				if !errors.Is(err, ErrGone) || !errdefs.IsNotFound(err) {
					t.Errorf("%s: %s: %v", when, what, err)
				}
			}
			if _, _, ok := g.Memory(); ok {
				t.Errorf("%s: it has a memory group", when)
			}
		}
		check("removed")
		for _, dir := range s.dirs {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			inheritCpuset(t, dir)
		}
		second := s.run("exec sleep 1000")
		check("made anew")
		if !alive(second.Process.Pid) {
			t.Error("the next container was killed")
		}
	})
}

func TestStatsAreThoseOfTheKernel(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("head -c 8000000 /dev/zero | tail -c 8000000 >/dev/null; exec sleep 1000")
	g := s.of(p.Process.Pid)
	check := func(when string, processes uint64) {
		t.Helper()
		var pids, memory, cpu uint64
		var events bool
		switch m := statsOf(t, g).(type) {
		case *stats1.Metrics:
			pids, memory, cpu = m.Pids.Current, m.Memory.Usage.Max, m.CPU.Usage.Total
			events = m.MemoryOomControl != nil
		case *stats2.Metrics:
			pids, memory, cpu = m.Pids.Current, max(m.Memory.MaxUsage, m.Memory.Usage), m.CPU.UsageUsec
			events = m.MemoryEvents != nil
		}
		if pids != processes || processes > 0 && memory == 0 || cpu == 0 || !events {
			t.Errorf("%s: %d processes, %d bytes, CPU %d, events %v", when, pids, memory, cpu, events)
		}
	}
	eventually(t, "the script sleeps", func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Process.Pid))
		return err == nil && string(name) == "sleep\n"
	})
	check("running", 1)
	_ = p.Process.Kill()
	<-p.done
	check("stopped", 0) // contract 3.10: between exit and Delete
}

func TestPidsIncludeNestedGroups(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		p, inner := s.run("exec sleep 1000"), s.run("exec sleep 1000")
		g := s.of(p.Process.Pid)
		home, err := g.home()
		if err != nil {
			t.Fatal(err)
		}
		nested := s.mkdir(s.mkdir(home.dir+"/a") + "/b")
		write(t, nested+"/cgroup.procs", fmt.Sprint(inner.Process.Pid))
		want := []int{p.Process.Pid, inner.Process.Pid}
		slices.Sort(want)
		if got := pids(t, g); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestGroupsMayVanishWhileTheyAreListed(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		p := s.run("exec sleep 1000")
		g := s.of(p.Process.Pid)
		home, err := g.home()
		if err != nil {
			t.Fatal(err)
		}
		stop, stopped := make(chan struct{}), make(chan error, 1)
		go func() { // ends when told to
			for {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := os.MkdirAll(home.dir+"/a/b/c", 0o755); err != nil {
					stopped <- err
					return
				}
				for _, name := range []string{"/a/b/c", "/a/b", "/a"} {
					_ = os.Remove(home.dir + name)
				}
			}
		}()
		for range 300 {
			if got := pids(t, g); !slices.Equal(got, []int{p.Process.Pid}) {
				t.Errorf("%v", got)
			}
		}
		close(stop)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestMain is also the programs that the tests start: one with some threads, and within.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("HOLDFAST_WITHIN") != "":
		if err := workWithin(os.Getenv("HOLDFAST_WITHIN")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case os.Getenv("HOLDFAST_THREADS") != "":
		fmt.Println("ready")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until we are killed
	default:
		os.Exit(m.Run())
	}
}

// threads starts a program with some threads and returns its pid.
func threads(t *testing.T) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_THREADS=1", "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := stdout.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// cgroup.procs cannot be read in threaded groups, nor cgroup.kill be written.
func TestThreadedGroupsAreListedAndKilled(t *testing.T) {
	for _, whole := range []bool{true, false} {
		t.Run(map[bool]string{true: "domain", false: "threaded"}[whole], func(t *testing.T) {
			s := newSandbox(t, true)
			pid := threads(t)
			s.join(pid)
			threaded := s.mkdir(s.dirs[""] + "/threads")
			write(t, threaded+"/cgroup.type", "threaded")
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil || len(tasks) < 2 {
				t.Fatalf("threads: %v %v", tasks, err)
			}
			write(t, threaded+"/cgroup.threads", tasks[len(tasks)-1].Name())

			g := s.of(pid)
			if !whole {
				p := *g.v2
				p.path, p.dir = p.path+"/threads", threaded
				if !p.identify() {
					t.Fatalf("no group %s", threaded)
				}
				g = &Group{unified: true, v2: &p}
			}
			if got := pids(t, g); !slices.Equal(got, []int{pid}) {
				t.Errorf("%v, want %d", got, pid)
			}
			if err := g.Signal(syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			eventually(t, "it is killed", func() bool { return !alive(pid) })
		})
	}
}

func TestControllersAreEnabledDownThePath(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("exec sleep 1000")
	g := s.of(p.Process.Pid)
	if !g.Unified() {
		if err := g.EnableControllers(); err != nil {
			t.Error(err)
		}
		t.Skip("the controllers of this host are those of version 1: nothing to enable")
	}
	pod := s.dirs[""]
	inner := s.mkdir(s.mkdir(pod+"/a") + "/b")
	write(t, inner+"/cgroup.procs", fmt.Sprint(p.Process.Pid))
	g = s.of(p.Process.Pid)
	if m := statsOf(t, g).(*stats2.Metrics); m.MemoryEvents != nil {
		t.Skip("somebody enables controllers by himself here")
	}
	if err := g.EnableControllers(); err != nil {
		t.Error(err)
	}
	if err := g.EnableControllers(); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, _, ok := g.Memory(); !ok {
		t.Error("it has no memory controller")
	}
	if m := statsOf(t, g).(*stats2.Metrics); m.Pids.Current != 1 || m.MemoryEvents == nil {
		t.Errorf("got %v", m)
	}
}

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// awaitEmpty waits until no process is left in the group.
func awaitEmpty(t *testing.T, g *Group) {
	t.Helper()
	eventually(t, "nothing left", func() bool { return len(pids(t, g)) == 0 })
}

func TestKillLeavesNothingThatForks(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		// Children fork and exit all the time: any list of them is out of date at once.
		p := s.run("while :; do (sleep 1000 & sleep 0.01 & true) & sleep 0.001; done")
		g := s.of(p.Process.Pid)
		awaitProcesses(t, g, 10)
		if err := g.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		awaitEmpty(t, g)
		<-p.done
	})
}

// Version 2 had no cgroup.kill before Linux 5.14.
func TestKillWithoutTheKernelsHelpLeavesNothing(t *testing.T) {
	s := newSandbox(t, true)
	p := s.run("while :; do (sleep 1000 & true) & sleep 0.001; done")
	g := s.of(p.Process.Pid)
	awaitProcesses(t, g, 10)
	d, err := g.v2.open()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := g.v2.exterminate(d); err != nil {
		t.Error(err)
	}
	awaitEmpty(t, g)
	if g.v2.frozen(d) {
		t.Error("the group was left frozen")
	}
}

func TestKillOfNobodyIsNoError(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		p := s.run("exec sleep 1000")
		g := s.of(p.Process.Pid)
		_ = p.Process.Kill()
		<-p.done
		if err := g.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	})
}

func TestKillReachesAPausedContainer(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		p := s.run(tens)
		g := s.of(p.Process.Pid)
		awaitProcesses(t, g, 11)
		dir, f := s.freezer(g)
		inner := s.mkdir(dir + "/inner")
		for _, pid := range pids(t, g)[:3] {
			write(t, inner+"/cgroup.procs", fmt.Sprint(pid))
		}
		write(t, filepath.Join(inner, f.file), f.freeze)
		write(t, filepath.Join(dir, f.file), f.freeze)
		if err := g.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		awaitEmpty(t, g)
	})
}

func TestAPausedContainerStaysPausedUnderOtherSignals(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		// The sleep shows that the trap is set. It may survive: a shell's child that has not
		// called execve yet still has the shell's handler.
		p := s.run("trap 'exit 7' TERM; sleep 1000 & wait")
		g := s.of(p.Process.Pid)
		awaitProcesses(t, g, 2)
		t.Cleanup(func() { _ = g.Signal(syscall.SIGKILL) })
		dir, f := s.freezer(g)
		write(t, filepath.Join(dir, f.file), f.freeze)
		if err := g.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(dir, f.self)); got != f.selfSays {
			t.Errorf("%s says %q", f.self, got)
		}
		if !alive(p.Process.Pid) {
			t.Error("it handled the signal while paused")
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		<-p.done // the signal was waiting for it
		if code := p.ProcessState.ExitCode(); code != 7 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestSignalReachesEveryProcessAndThaws(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		p := s.run(tens)
		g := s.of(p.Process.Pid)
		awaitProcesses(t, g, 11)
		if err := g.Signal(0); err != nil { // asks whether it could
			t.Error(err)
		}
		if n := len(pids(t, g)); n != 11 {
			t.Errorf("%d processes after signal 0", n)
		}
		if err := g.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-p.done
		if status := p.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
			t.Errorf("ended by %v", p.ProcessState)
		}
		awaitEmpty(t, g)
		if dir, f := s.freezer(g); read(t, filepath.Join(dir, f.self)) == f.selfSays {
			t.Error("the group was left frozen")
		}
	})
}

func TestThawReachesNestedGroups(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		g := s.of(s.run("exec sleep 1000").Process.Pid)
		dir, f := s.freezer(g)
		inner := s.mkdir(s.mkdir(dir+"/a") + "/b")
		frozen := []string{inner, dir + "/a", dir}
		for _, d := range frozen {
			write(t, filepath.Join(d, f.file), f.freeze)
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		for _, d := range frozen {
			if got := read(t, filepath.Join(d, f.self)); got == f.selfSays {
				t.Errorf("%s is still frozen", d)
			}
		}
		if err := g.Thaw(); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// We may be moved into a container's group after it was found, say by an administrator.
func TestSignalNeverHitsOurselves(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		p := s.run("exec sleep 1000")
		g := s.of(p.Process.Pid)
		home, err := g.home()
		if err != nil {
			t.Fatal(err)
		}
		back := ourHome(t, home)
		nested := s.mkdir(home.dir + "/nested")
		for _, dir := range []string{home.dir, nested} {
			write(t, filepath.Join(dir, "cgroup.procs"), fmt.Sprint(os.Getpid()))
			for _, sig := range []syscall.Signal{syscall.SIGCONT, syscall.SIGKILL} {
				if err := g.Signal(sig); !errors.Is(err, ErrShared) {
					t.Errorf("%v in %s: %v", sig, dir, err)
				}
			}
			d, err := home.open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := home.strike(d, syscall.SIGCONT); !errors.Is(err, ErrShared) {
				t.Errorf("strike: %v", err)
			}
			d.close()
			write(t, back, fmt.Sprint(os.Getpid()))
		}
		if !alive(p.Process.Pid) {
			t.Error("the container was killed")
		}
	})
}

// Between the list and the signal a pid may have been given to another process.
func TestAProcessThatIsNotInTheGroupIsNotHit(t *testing.T) {
	onEach(t, func(t *testing.T, s *sandbox) {
		g := s.of(s.run("exec sleep 1000").Process.Pid)
		home, err := g.home()
		if err != nil {
			t.Fatal(err)
		}
		stranger := spawn(t, "exec sleep 1000")
		if err := home.hit(stranger.Process.Pid, stranger.Process.Pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if !alive(stranger.Process.Pid) {
			t.Error("it was killed")
		}
		for _, pid := range []int{os.Getpid(), 1, 0, -1} {
			if err := home.hit(pid, pid, 0); !errors.Is(err, ErrShared) {
				t.Errorf("pid %d: %v", pid, err)
			}
		}
	})
}

// What cannot be killed, here because the group above is frozen, must not hold us for ever.
func TestKillGivesUpAfterAWhile(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("exec sleep 1000")
	g := s.of(p.Process.Pid)
	if g.Unified() {
		t.Skip("version 2 kills frozen processes too")
	}
	outer, f := s.freezer(g)
	inner := s.mkdir(outer + "/inner")
	write(t, inner+"/cgroup.procs", fmt.Sprint(p.Process.Pid))
	g = s.of(p.Process.Pid)
	write(t, filepath.Join(outer, f.file), f.freeze)
	began := time.Now()
	err := g.Signal(syscall.SIGKILL)
	if took := time.Since(began); took < killLimit || took > killLimit+5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err == nil || !strings.Contains(err.Error(), "1 processes") {
		t.Errorf("got %v", err)
	}
	write(t, filepath.Join(outer, f.file), f.thaw)
	<-p.done
}

package direct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

// In a container that shares the host's pid namespace nobody but the shim ends the execs when the
// init process is killed; their exits come before its exit (issue 9719).
func TestInitOfHostPIDContainerKilledWithExecs(t *testing.T) {
	const execs = 64
	cfg := sleeper()
	cfg.HostPID = true
	l := newLab(t, labConfig{bundle: cfg})
	l.run("c1", nil)
	pids := make([]int, execs)
	spread(t, execs, func(i int) error {
		id := fmt.Sprintf("e%d", i)
		if err := l.exec("c1", id, sleeper(), nil); err != nil {
			return err
		}
		pid, err := l.start("c1", id)
		pids[i] = pid
		return err
	})
	began := time.Now()
	l.kill("c1", "", 9)
	for _, pid := range pids {
		l.eventually(fmt.Sprintf("exec %d is dead", pid), func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	}
	t.Logf("%d execs are dead %v after the kill", execs, time.Since(began).Round(time.Millisecond))
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	init := l.event(client.Exits("c1", ""))
	if n := count(l.Events.All(), func(e client.Event) bool {
		return e.Topic == "/tasks/exit" && e.Exec() != "" && !e.At.After(init.At)
	}); n != execs {
		t.Errorf("%d exits of execs before that of the init process, want %d", n, execs)
	}
	for i := range execs {
		if got := l.wait("c1", fmt.Sprintf("e%d", i)); got != 137 {
			t.Errorf("e%d ended with %d", i, got)
		}
	}
	l.mustDelete("c1", "")
}

// An exec that has left the container's cgroups, as a privileged one may, must not hold back the exit
// of the init process for as long as it likes.
func TestExecThatLeftTheCgroupsDiesWithInit(t *testing.T) {
	cfg := sleeper()
	cfg.HostPID = true
	l := newLab(t, labConfig{bundle: cfg})
	l.run("c1", nil)
	pid := l.runExec("c1", "e1", sleeper())
	roots, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for _, procs := range append(roots, "/sys/fs/cgroup/cgroup.procs") {
		if err := overwrite(procs, strconv.Itoa(pid)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
	}
	if groups := l.read(fmt.Sprintf("/proc/%d/cgroup", pid)); strings.Contains(groups, l.cgroup("")) {
		t.Fatalf("the exec is still in %s", groups)
	}
	l.kill("c1", "", 9)
	if a, b := l.wait("c1", "e1"), l.wait("c1", ""); a != 137 || b != 137 {
		t.Errorf("exit statuses %d and %d", a, b)
	}
	l.mustDelete("c1", "")
}

func TestManyExecsAtOnce(t *testing.T) {
	const execs = 200
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	l.script("c1", map[string]step{"exec": {"child": map[string]any{"life": "100ms", "exit": 5}}})
	var all sync.WaitGroup
	errs := make(chan error, execs)
	for i := range execs {
		all.Go(func() { errs <- l.oneExec("c1", fmt.Sprintf("e%d", i), sleeper(), 5) })
	}
	all.Wait()
	for range execs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	l.script("c1", nil)
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	if got, want := len(l.Events.All()), 4+3*execs; got != want {
		t.Errorf("%d events, want %d", got, want)
	}
}

// An exec whose start races the death of the init process either runs, and then its exit comes
// before that of the init process, or is refused, and then nothing is told of it (T24).
func TestExecStartedWhileInitDies(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(map[bool]string{false: "private", true: "shared"}[shared], func(t *testing.T) {
			cfg := sleeper()
			cfg.HostPID = shared
			l := newLab(t, labConfig{bundle: cfg})
			started, refused := 0, 0
			for round := range 10 {
				pid := l.run("c1", nil)
				const execs = 4
				var all sync.WaitGroup
				results := make(chan error, execs)
				for i := range execs {
					id := fmt.Sprintf("r%d-e%d", round, i)
					l.mustExec("c1", id, sleeper(), nil)
					all.Go(func() { _, err := l.start("c1", id); results <- err })
				}
				// At a different moment of the starts in each round.
				time.Sleep(time.Duration(round) * 4 * time.Millisecond)
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				all.Wait()
				for range execs {
					if err := <-results; err == nil {
						started++
					} else {
						refused++
						if errors.Is(err, errdefs.ErrNotFound) {
							t.Errorf("a start answers NotFound: %v", err)
						}
					}
				}
				if got := l.wait("c1", ""); got != 137 {
					t.Errorf("exit status %d", got)
				}
				l.mustDelete("c1", "")
			}
			t.Logf("%d execs ran, %d were refused", started, refused)
			l.noStrays()
		})
	}
}

// noStrays checks that no process is left in a cgroup of this lab. What has died and only waits for
// its parent is gone.
func (l *lab) noStrays() {
	l.t.Helper()
	var strays []string
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if strays = l.strays(); len(strays) == 0 {
			return
		}
		if time.Now().After(end) {
			l.t.Errorf("processes are left: %q", strays)
			return
		}
	}
}

func (l *lab) strays() []string {
	l.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		l.t.Fatal(err)
	}
	var strays []string
	for _, e := range entries {
		groups, err := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		if err != nil || !strings.Contains(string(groups), l.cgroup("")) {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			strays = append(strays, string(stat))
		}
	}
	return strays
}

// After the death of the init process an exec can still be added while its exit waits for others,
// but not started (issue 10589).
func TestExecAddedWhileTheExitWaitsIsNotStarted(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	pid := l.run("c1", nil)
	l.script("c1", map[string]step{"exec": {"child": map[string]any{"deaf": true}}})
	l.runExec("c1", "e1", sleeper())
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.eventually("the init process is reaped", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	l.mustExec("c1", "e2", sleeper(), nil)
	_, err := l.start("c1", "e2")
	if err == nil || err.Error() != "container c1 init process is not running: failed precondition" {
		t.Errorf("start of e2: %v", err)
	}
	if n := count(l.Events.All(), client.Exits("c1", "")); n != 0 {
		t.Error("the init process's exit did not wait for the exec")
	}
	a, err := l.State(within(t), &task.StateRequest{ID: "c1"})
	if err != nil || a.GetStatus() != 2 {
		t.Errorf("state while the exit waits: %v, %v", a, err)
	}
	l.kill("c1", "e1", 9)
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if got := l.wait("c1", "e2"); got != 0 {
		t.Errorf("the exec that never ran ended with %d", got)
	}
	l.mustDelete("c1", "e2")
	l.mustDelete("c1", "")
}

// overwrite writes to a file that is there. On a host with cgroup v1 there is only a tmpfs at the
// place of the version 2 hierarchy, and a file that was made in it would mislead everybody.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

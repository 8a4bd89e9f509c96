package direct

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
)

// stranger starts a process that gets the pid of one that has gone.
func stranger(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	const lastPid = "/proc/sys/kernel/ns_last_pid"
	for range 1000 {
		for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil && time.Now().Before(end); { // somebody else's
			time.Sleep(10 * time.Millisecond)
		}
		if err := os.WriteFile(lastPid, fmt.Append(nil, pid-1), 0); err != nil {
			t.Skipf("pids cannot be chosen: %v", err)
		}
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() { cmd.Process.Kill(); cmd.Wait() }
		if cmd.Process.Pid == pid {
			t.Cleanup(end)
			return cmd
		}
		end() // somebody was quicker
	}
	t.Fatalf("pid %d cannot be had", pid)
	return nil
}

// A pid that belongs to a stranger by now is not signalled, whatever is asked of the process that had
// it (demand.md 9).
func TestStrangersWithOurPidsAreLeftAlone(t *testing.T) {
	for _, exec := range []string{"", "e1"} {
		t.Run("exec "+exec, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper()})
			pid := l.run("c1", nil)
			if exec != "" {
				pid = l.runExec("c1", exec, sleeper())
			}
			l.kill("c1", exec, 9)
			l.wait("c1", exec)
			other := stranger(t, pid)
			for _, all := range []bool{false, true} {
				for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
					_, err := l.Kill(within(t), &task.KillRequest{ID: "c1", ExecID: exec, Signal: uint32(sig), All: all})
					if exec != "" || !all {
						is(t, "kill", err, errdefs.ErrNotFound)
					}
				}
			}
			l.mustDelete("c1", exec)
			if exec != "" {
				l.finish("c1")
			}
			l.cleanUp("c1")
			if err := other.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("the stranger: %v", err)
			}
			if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || string(state) != "/bin/sleep\x001000\x00" {
				t.Errorf("the stranger is %q, %v", state, err)
			}
		})
	}
}

// The same for the delete action, which knows the pid from a file in the bundle.
func TestDeleteActionLeavesStrangersAlone(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	pid := l.run("c1", nil)
	l.crash()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.eventually("the init process has gone", func() bool { return syscall.Kill(pid, 0) != nil })
	other := stranger(t, pid)
	l.cleanUp("c1")
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger: %v", err)
	}
	if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || len(state) == 0 {
		t.Errorf("the stranger has died: %v", err)
	}
	l.Close()
}

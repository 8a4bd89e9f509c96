package direct

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// A process that is killed while it is paused dies, whoever killed it and whoever thawed it, and
// leaves a container that can be deleted (T33).
func TestExitWhilePaused(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	for what, kill := range map[string]func(pid int){
		"by a request":        func(int) { l.kill("c1", "", 9) },
		"by a request to all": func(int) { l.killAll("c1", 9) },
		"by somebody else": func(pid int) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			l.thaw("c1")
		},
	} {
		pid := l.run("c1", nil)
		l.runExec("c1", "e1", sleeper())
		l.pause("c1")
		for _, exec := range []string{"", "e1"} {
			if got := l.status("c1", exec); got != tasktypes.Status_PAUSED {
				t.Errorf("%s: %q is %s", what, exec, got)
			}
		}
		kill(pid)
		if got := l.wait("c1", ""); got != 137 {
			t.Errorf("%s: exit status %d", what, got)
		}
		if got := l.status("c1", ""); got != tasktypes.Status_STOPPED {
			t.Errorf("%s: it is %s", what, got)
		}
		l.mustDelete("c1", "")
	}
}

func (l *lab) killAll(id string, signal uint32) {
	l.t.Helper()
	if _, err := l.Kill(within(l.t), &task.KillRequest{ID: id, Signal: signal, All: true}); err != nil {
		l.t.Fatal(err)
	}
}

// thaw thaws a container behind the shim's back.
func (l *lab) thaw(id string) {
	l.t.Helper()
	err := os.WriteFile("/sys/fs/cgroup/freezer"+l.cgroup(id)+"/freezer.state", []byte("THAWED"), 0)
	if errors.Is(err, os.ErrNotExist) {
		err = os.WriteFile("/sys/fs/cgroup"+l.cgroup(id)+"/cgroup.freeze", []byte("0"), 0)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) { // it has gone by itself
		l.t.Fatal(err)
	}
}

// What a paused process does, it does after the resume; signals come then, too.
func TestPauseAndResume(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("trap 'echo got it; exit 4' TERM; while :; do echo tick; sleep 0.02; done")})
	io := l.io("c1", client.IOConfig{})
	l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "tick"); err != nil {
		t.Fatal(err)
	}
	l.pause("c1")
	l.kill("c1", "", uint32(syscall.SIGTERM))
	// What it said before may still be on its way.
	l.eventually("a paused container says nothing", func() bool {
		before := io.Out.String()
		time.Sleep(150 * time.Millisecond) // in which seven ticks would come
		return io.Out.String() == before
	})
	if _, err := l.Resume(within(t), &task.ResumeRequest{ID: "c1"}); err != nil {
		t.Fatal(err)
	}
	if got := l.wait("c1", ""); got != 4 {
		t.Errorf("exit status %d", got)
	}
	if out := l.output(io.Out); !strings.Contains(out, "got it") {
		t.Errorf("output %q", out)
	}
	l.mustDelete("c1", "")
}

// rootfsElsewhere moves the rootfs of a bundle away and leaves an empty one, as a manager does.
func (l *lab) rootfsElsewhere(id string) string {
	l.t.Helper()
	source, rootfs := filepath.Join(l.dir, id+"-source"), filepath.Join(l.dir, id, "rootfs")
	if err := os.Rename(rootfs, source); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Mkdir(rootfs, 0o711); err != nil {
		l.t.Fatal(err)
	}
	return source
}

func TestRootfsIsMountedAndUnmounted(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("echo hello >/written; exec sleep 1000")})
	source := l.rootfsElsewhere("c1")
	upper, work, extra := filepath.Join(l.dir, "upper"), filepath.Join(l.dir, "work"), filepath.Join(l.dir, "extra")
	for _, dir := range []string{upper, work, extra} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bind := &types.Mount{Type: "bind", Source: source, Options: []string{"rbind", "rw"}}
	overlay := &types.Mount{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + source, "upperdir=" + upper, "workdir=" + work}}
	for _, c := range []struct {
		name    string
		mounts  []*types.Mount
		written string
	}{
		{"bind", []*types.Mount{bind}, filepath.Join(source, "written")},
		{"overlay", []*types.Mount{overlay}, filepath.Join(upper, "written")},
		{"overlay with a bind in it", []*types.Mount{overlay, {
			Type: "bind", Source: extra, Target: "mnt", Options: []string{"bind", "ro"},
		}}, filepath.Join(upper, "written")},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := l.createRequest("c1", nil)
			r.Rootfs = c.mounts
			if _, err := l.Create(within(t), r); err != nil {
				t.Fatal(err)
			}
			if got := l.mountsOf("c1"); got != len(c.mounts) {
				t.Errorf("%d mounts at rootfs, want %d", got, len(c.mounts))
			}
			l.mustStart("c1", "")
			l.eventually("the container has written", func() bool {
				content, err := os.ReadFile(c.written)
				return err == nil && string(content) == "hello\n"
			})
			l.finish("c1")
			if got := l.mountsOf("c1"); got != 0 {
				t.Errorf("%d mounts after the deletion", got)
			}
			// The manager removes it with rmdir(2) (T60).
			if err := os.Remove(filepath.Join(l.dir, "c1", "rootfs")); err != nil {
				t.Errorf("rootfs is not an empty directory: %v", err)
			}
			if err := os.Remove(c.written); err != nil {
				t.Error(err)
			}
		})
	}
}

// mountsOf returns how many mounts there are at and below the rootfs of a container.
func (l *lab) mountsOf(id string) int {
	l.t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(l.dir, id, "rootfs")))
	if err != nil {
		l.t.Fatal(err)
	}
	return len(mounts)
}

// A create that fails has unmounted what it had mounted.
func TestRootfsOfAFailedCreateIsUnmounted(t *testing.T) {
	l := newLab(t, labConfig{bundle: client.BundleConfig{Args: []string{"/no/such/program"}}})
	source := l.rootfsElsewhere("c1")
	r := l.createRequest("c1", nil)
	r.Rootfs = []*types.Mount{{Type: "bind", Source: source, Options: []string{"rbind", "rw"}}}
	if _, err := l.Create(within(t), r); err == nil {
		t.Fatal("created")
	}
	if got := l.mountsOf("c1"); got != 0 {
		t.Errorf("%d mounts are left", got)
	}
}

// Hooks get the state on their standard input, and may see the rootfs (managers.md, nerdctl).
func TestHooksRun(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	cfg := sleeper()
	cfg.Edit = func(s *specs.Spec) {
		hook := func(name string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >" + file(name)}}}
		}
		s.Hooks = &specs.Hooks{CreateRuntime: hook("created"), Poststop: hook("stopped")}
	}
	l := newLab(t, labConfig{bundle: cfg})
	pid := l.run("c1", nil)
	var state specs.State
	if err := json.Unmarshal([]byte(l.read(file("created"))), &state); err != nil {
		t.Fatal(err)
	}
	if state.ID != "c1" || state.Pid != pid || state.Bundle != filepath.Join(l.dir, "c1") {
		t.Errorf("the hook got %+v", state)
	}
	if _, err := os.Stat(file("stopped")); err == nil {
		t.Error("poststop ran before the deletion")
	}
	l.finish("c1")
	if err := json.Unmarshal([]byte(l.read(file("stopped"))), &state); err != nil || state.ID != "c1" {
		t.Errorf("the poststop hook got %+v, %v", state, err)
	}
}

// The socket answers its own user only, even where its file does not keep others away.
func TestOtherUsersAreRefused(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	path := strings.TrimPrefix(l.Result.Address, "unix://")
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", file, got, want)
		}
		if err := os.Chmod(file, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[int]string{0: "answered", 1000: "hung up"} {
		if got := knock(path, uid, l.request(v3, "Connect", nil)); got != want {
			t.Errorf("user %d is %s, want %s", uid, got, want)
		}
	}
	l.pid() // it still answers us
}

// knock sends a request as another user, and tells what became of it.
func knock(path string, uid int, request []byte) string {
	result := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is the other user's, ends with us
		result <- func() string {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				return errno.Error()
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err.Error()
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return err.Error()
			}
			timeout := unix.NsecToTimeval(int64(limit))
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
				return err.Error()
			}
			// It may have hung up already.
			_ = unix.Sendto(fd, request, unix.MSG_NOSIGNAL, nil)
			n, err := unix.Read(fd, make([]byte, 100))
			switch {
			case n > 0:
				return "answered"
			case err == nil || errors.Is(err, unix.ECONNRESET):
				return "hung up"
			}
			return err.Error()
		}()
	}()
	return <-result
}

// A shim ends by SIGTERM although it has containers, or the host could not be shut down (T12). The
// containers are the manager's to clean up then.
func TestSignalEndsTheShim(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
			c1 := l.run("c1", nil)
			shim := l.pid()
			if err := syscall.Kill(shim, signal); err != nil {
				t.Fatal(err)
			}
			l.killed = true
			l.gone()
			l.dead(shim)
			if err := l.Log.Output().WaitFor(within(t), "shim ends by signal"); err != nil {
				t.Error(err)
			}
			if a := l.cleanUp("c1"); int(a.GetPid()) != c1 || a.GetExitStatus() != 137 {
				t.Errorf("delete action answers %v", a)
			}
			l.noStrays()
			order.Verify(t, l.Events.All(), l.relax...)
			l.Close()
		})
	}
}

// Signals that others die of, which come when a reader or a terminal goes, do nothing to a shim.
func TestSignalsThatDoNotEndTheShim(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	shim := l.pid()
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGCHLD, syscall.SIGURG} {
		if err := syscall.Kill(shim, signal); err != nil {
			t.Fatal(err)
		}
		// Signals are delivered before the shim reads our next request.
		if got := l.pid(); got != shim {
			t.Errorf("after %v: pid %d, want %d", signal, got, shim)
		}
	}
	l.finish("c1")
}

// A log says what happened to whom, and SIGUSR1 asks for the stacks and the last steps.
func TestLog(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("exit 3")})
	l.run("c1", nil)
	l.wait("c1", "")
	l.mustDelete("c1", "")
	if err := syscall.Kill(l.pid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"goroutine ", `msg="task created" task=c1 pid=`, `msg="task exited" task=c1 pid=`, "status=3", "op=Create", "steps="} {
		if err := l.Log.Output().WaitFor(within(t), want); err != nil {
			t.Errorf("the log does not say %q: %v", want, err)
		}
	}
	for line := range strings.Lines(l.Log.String()) {
		if !strings.HasPrefix(line, "time=") || !strings.Contains(line, " level=") || !strings.Contains(line, " msg=") {
			t.Errorf("line %q", line)
		}
	}
	l.pid()
}

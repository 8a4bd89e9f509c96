package runc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/reaper"
)

// object is a piece of JSON.
type object = map[string]any

// realRuntimes runs a test with each runtime named in HOLDFAST_TEST_RUNTIMES, a list of names and
// paths; by default with runc and crun.
func realRuntimes(t *testing.T, test func(t *testing.T, binary string)) {
	t.Helper()
	requireRoot(t)
	names := strings.Fields(os.Getenv("HOLDFAST_TEST_RUNTIMES"))
	if len(names) == 0 {
		names = []string{"runc", "crun"}
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("%s is not installed", name)
			}
			if filepath.Base(name) == "crun" && hybrid() {
				name = withoutUnified(t, name)
			}
			test(t, name)
		})
	}
}

// hybrid tells whether a cgroup v2 hierarchy with controllers lies below v1, which crun refuses.
func hybrid() bool {
	controllers, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	return err == nil && len(controllers) > 1
}

// withoutUnified returns a wrapper that runs the runtime where the v2 hierarchy is not mounted.
func withoutUnified(t *testing.T, name string) string {
	t.Helper()
	script, err := filepath.Abs("../test/without-unified")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(name))
	text := "#!/bin/sh\nexec " + script + " " + name + " \"$@\"\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// contain returns a Runtime with a bundle in which args can be run: its /usr is the host's. The
// bundle's path is longer than a socket address, as in Kubernetes.
func contain(t *testing.T, binary string, terminal bool, args ...string) *Runtime {
	t.Helper()
	dir := t.TempDir()
	r := &Runtime{
		Binary: binary, Root: filepath.Join(dir, "root"), ID: "c1",
		Bundle: filepath.Join(dir, "io.containerd.runtime.v2.task", "k8s.io", strings.Repeat("0123456789abcdef", 4), "bundle"),
	}
	rootfs := filepath.Join(r.Bundle, "rootfs")
	for _, d := range []string{"usr", "proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+link, filepath.Join(rootfs, link)); err != nil {
			t.Fatal(err)
		}
	}
	cgroup := fmt.Sprintf("holdfast-runc-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	text, err := json.Marshal(object{
		"ociVersion": "1.0.0",
		"process":    processSpec(terminal, args...),
		"root":       object{"path": "rootfs"},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
			{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			{"destination": "/usr", "type": "bind", "source": "/usr", "options": []string{"rbind", "ro"}},
		},
		"linux": object{
			"namespaces":  []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}},
			"cgroupsPath": "/" + cgroup,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Bundle, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		deleteAtEnd(t, r)
		if left, err := filepath.Glob("/sys/fs/cgroup/*/" + cgroup); err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %q, %v", left, err)
		}
	})
	return r
}

func processSpec(terminal bool, args ...string) object {
	return object{
		"terminal": terminal, "cwd": "/", "user": object{"uid": 0, "gid": 0},
		"args": args, "env": []string{"PATH=/usr/bin:/usr/sbin", "TERM=xterm"},
	}
}

func execConfig(t *testing.T, id string, terminal bool, args ...string) ExecConfig {
	t.Helper()
	process, err := json.Marshal(processSpec(terminal, args...))
	if err != nil {
		t.Fatal(err)
	}
	return ExecConfig{ID: id, Console: terminal, Process: process}
}

func TestRealContainerLivesItsLife(t *testing.T) {
	realRuntimes(t, func(t *testing.T, binary string) {
		ctx := t.Context()
		r := contain(t, binary, false, "sh", "-c", "echo started; exec sleep 1000")
		out := pipe(t)
		init, master, err := r.Create(ctx, CreateConfig{Streams: Streams{Stdout: out.w, Stderr: out.w}, NoPivot: false})
		if err != nil || master != nil {
			t.Fatalf("create: master %v, %v", master, err)
		}
		endWith(t, init)
		out.w.Close()
		if pids, err := r.Pids(ctx); err != nil || !slices.Equal(pids, []int{init.Pid()}) {
			t.Errorf("pids %v, %v; want %d", pids, err, init.Pid())
		}
		if err := r.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out.r).ReadString('\n'); line != "started\n" {
			t.Errorf("read %q, %v", line, err)
		}
		execs(t, r)
		freezes(t, r)
		if err := r.Update(ctx, []byte(`{"pids":{"limit":77}}`)); err != nil {
			t.Errorf("update: %v", err)
		}
		if got := pidsLimitOf(t, init); got != "77" {
			t.Errorf("pids.max is %q after the update", got)
		}
		if err := r.Start(ctx); err == nil {
			t.Error("it was started twice")
		}
		if _, _, err := r.Create(ctx, CreateConfig{}); !errors.Is(err, ErrExists) {
			t.Errorf("second create: %v", err)
		}
		dies(t, r, init)
	})
}

// execs runs processes in the container.
func execs(t *testing.T, r *Runtime) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			cfg := execConfig(t, fmt.Sprint("e", i), false, "sh", "-c", fmt.Sprint("echo out; exit ", i))
			read, write, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			defer read.Close()
			cfg.Stdout = write
			child, _, err := r.Exec(t.Context(), cfg)
			write.Close()
			if err != nil {
				t.Errorf("exec %d: %v", i, err)
				return
			}
			if got, err := io.ReadAll(read); string(got) != "out\n" {
				t.Errorf("exec %d: read %q, %v", i, got, err)
			}
			<-child.Done()
			if got := child.Exit().Status; got != i {
				t.Errorf("exec %d: status %d", i, got)
			}
		})
	}
	wg.Wait()
	child, _, err := r.Exec(t.Context(), execConfig(t, "no", false, "no-such-program"))
	if err == nil || child != nil || !strings.HasPrefix(err.Error(), "OCI runtime exec failed: ") || !strings.Contains(err.Error(), "not found in $PATH") {
		t.Errorf("exec of nothing: %v, %v", child, err)
	}
	if errors.Is(err, ErrNotFound) || errdefs.IsNotFound(err) {
		t.Errorf("a missing program was taken for a missing container: %v", err)
	}
}

// freezes pauses and resumes the container.
func freezes(t *testing.T, r *Runtime) {
	t.Helper()
	if err := r.Pause(t.Context()); err != nil {
		t.Errorf("pause: %v", err)
	}
	if _, _, err := r.Exec(t.Context(), execConfig(t, "p", false, "true")); !errors.Is(err, ErrPaused) || !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec while paused: %v", err)
	}
	if err := r.Resume(t.Context()); err != nil {
		t.Errorf("resume: %v", err)
	}
}

// dies kills and deletes the container.
func dies(t *testing.T, r *Runtime, init *reaper.Child) {
	t.Helper()
	ctx := t.Context()
	if err := r.Kill(ctx, 0, false); err != nil {
		t.Errorf("signal 0: %v", err)
	}
	if err := r.Delete(ctx, false); err == nil {
		t.Error("a running container was deleted without force")
	}
	if err := r.Kill(ctx, syscall.SIGKILL, false); err != nil {
		t.Errorf("kill: %v", err)
	}
	if got := waitDone(t, init).Status; got != 137 {
		t.Errorf("status %d", got)
	}
	if err := r.Kill(ctx, syscall.SIGKILL, false); !errors.Is(err, ErrNotRunning) || err.Error() != "process already finished: not found" {
		t.Errorf("second kill: %v", err)
	}
	if _, _, err := r.Exec(ctx, execConfig(t, "late", false, "true")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("exec in a dead container: %v", err)
	}
	if err := r.Delete(ctx, false); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := r.Delete(ctx, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
	if err := r.Kill(ctx, syscall.SIGKILL, false); !errors.Is(err, ErrNotFound) || err.Error() != "no such container: not found" {
		t.Errorf("kill after delete: %v", err)
	}
	if _, err := r.Pids(ctx); !errors.Is(err, ErrNotFound) || !errdefs.IsNotFound(err) {
		t.Errorf("pids after delete: %v", err)
	}
}

// pidsLimitOf reads pids.max of a process's cgroup, in whichever hierarchy has it.
func pidsLimitOf(t *testing.T, child *reaper.Child) string {
	t.Helper()
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", child.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(cgroups)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for _, dir := range []string{filepath.Join("/sys/fs/cgroup", f[1], f[2]), filepath.Join("/sys/fs/cgroup", f[2])} {
			if content, err := os.ReadFile(filepath.Join(dir, "pids.max")); err == nil {
				return strings.TrimSpace(string(content))
			}
		}
	}
	t.Fatal("no cgroup with a pids controller")
	return ""
}

func TestRealConsoleComesByALongPath(t *testing.T) {
	realRuntimes(t, func(t *testing.T, binary string) {
		r := contain(t, binary, true, "sh", "-c", "test -t 0 && echo terminal; exec sleep 1000")
		if len(r.Bundle) < 108 {
			t.Fatalf("the bundle's path has only %d bytes", len(r.Bundle))
		}
		init, master, err := r.Create(t.Context(), CreateConfig{Console: true})
		if err != nil {
			t.Fatal(err)
		}
		endWith(t, init)
		defer master.Close()
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLine(t, master, "terminal")
		child, second, err := r.Exec(t.Context(), execConfig(t, "e1", true, "sh", "-c", "test -t 1 && echo another; sleep 1000"))
		if err != nil {
			t.Fatal(err)
		}
		endWith(t, child)
		wantLine(t, second, "another")
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		waitDone(t, child) // hung up
	})
}

func TestRealCreateThatFailsLeavesNothing(t *testing.T) {
	realRuntimes(t, func(t *testing.T, binary string) {
		r := contain(t, binary, false, "no-such-program")
		child, _, err := r.Create(t.Context(), CreateConfig{})
		if child != nil { // crun finds out at start
			endWith(t, child)
			err = r.Start(t.Context())
		}
		if err == nil || !strings.HasPrefix(err.Error(), "OCI runtime ") || !strings.Contains(err.Error(), "not found in $PATH") || errdefs.IsNotFound(err) {
			t.Errorf("error %v", err)
		}
	})
}

// A terminal in config.json and none in the request is for the runtime to refuse, in its words.
func TestRealRuntimeRefusesAMissingConsoleSocket(t *testing.T) {
	realRuntimes(t, func(t *testing.T, binary string) {
		r := contain(t, binary, true, "true")
		child, _, err := r.Create(t.Context(), CreateConfig{})
		if err == nil || !strings.HasPrefix(err.Error(), "OCI runtime create failed: ") || !strings.Contains(err.Error(), "console") && !strings.Contains(err.Error(), "terminal") {
			t.Errorf("child %v, error %v", child, err)
		}
		if pids := offspring(t); len(pids) != 0 {
			t.Errorf("processes %v are left", pids)
		}
	})
}

// A hook that hangs, be it the runtime's child or that of the container's init, is killed with all
// that the command has begun, and the runtime cleans up: init is in a session of its own and would
// outlive the runtime's group.
func TestRealCreateThatHangsInAHookIsUndone(t *testing.T) {
	realRuntimes(t, func(t *testing.T, binary string) {
		for _, kind := range []string{"prestart", "createRuntime", "createContainer"} {
			t.Run(kind, func(t *testing.T) {
				r := contain(t, binary, false, "sleep", "1000")
				reached := filepath.Join(r.Bundle, "hook")
				edit(t, r, func(spec object) {
					spec["hooks"] = object{kind: []object{{
						"path": "/bin/sh", "args": []string{"sh", "-c", "touch " + reached + "; exec sleep 1000"},
					}}}
				})
				child, _, err := r.Create(until(t, "hook", exists(reached)), CreateConfig{})
				if child != nil || !errors.Is(err, ErrHung) || !strings.Contains(err.Error(), "(sleep) in state") && !strings.Contains(err.Error(), "(sh) in state") {
					t.Errorf("child %v, error %v", child, err)
				}
				poll(t, "all processes to end", func() bool { return len(offspring(t)) == 0 })
				if err := r.Delete(t.Context(), false); !errors.Is(err, ErrNotFound) {
					t.Errorf("delete: %v", err)
				}
			})
		}
	})
}

// edit changes a bundle's config.json.
func edit(t *testing.T, r *Runtime, change func(spec object)) {
	t.Helper()
	path := filepath.Join(r.Bundle, "config.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var spec object
	if err := json.Unmarshal(content, &spec); err != nil {
		t.Fatal(err)
	}
	change(spec)
	if content, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

package direct

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
	"holdfast/internal/proc"
	"holdfast/test/order"
)

// halfCreating returns options with a runtime that dies while it makes the control groups of c1,
// which nobody but itself knows of by then; and the shim too, if that is wanted.
func (l *lab) halfCreating(victims string) *options.Options {
	l.t.Helper()
	path := filepath.Join(l.dir, "halfway")
	group := l.cgroup("c1")
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in *" create "*)
	shim=$PPID
	runc "$@" &
	until [ -d /sys/fs/cgroup/pids%s ] || [ -d /sys/fs/cgroup%s ]; do :; done
	kill -9 $! %s $$
esac
exec runc "$@"
`, group, group, victims)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		l.t.Fatal(err)
	}
	return &options.Options{BinaryName: path}
}

// groupsOf returns the control groups of a container that are there.
func (l *lab) groupsOf(id string) []string {
	l.t.Helper()
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup(id))
	if err != nil {
		l.t.Error(err)
	}
	if two := "/sys/fs/cgroup" + l.cgroup(id); exists(two) {
		groups = append(groups, two)
	}
	return groups
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestCreateWhoseRuntimeIsKilledLeavesNoGroups(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.opts = l.halfCreating("")
	if _, err := l.create("c1", nil); err == nil {
		t.Fatal("it was created")
	}
	if left := l.groupsOf("c1"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	l.opts = nil
	l.run("c1", nil)
	l.finish("c1")
}

// halfRestoring returns options with a runtime that dies in a restore when it has made the control groups
// of c1, with a process in them that takes a while to notice; and the shim too, if that is wanted. Real
// restores need CRIU.
func (l *lab) halfRestoring(victims string) *options.Options {
	l.t.Helper()
	path := filepath.Join(l.dir, "halfway")
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in *" restore "*)
	shim=$PPID
	sleep 0.2 &
	for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
		[ -e $top/cgroup.procs ] || continue
		mkdir -p $top%[1]s && echo $! > $top%[1]s/cgroup.procs
	done
	kill -9 %[2]s $$
esac
exec runc "$@"
`, l.cgroup("c1"), victims)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		l.t.Fatal(err)
	}
	return &options.Options{BinaryName: path}
}

// A restore that fails leaves a task that can be tried again, and deleted.
func TestRestoreWhoseRuntimeIsKilledLeavesNoGroups(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.opts = l.halfRestoring("")
	r := l.createRequest("c1", nil)
	r.Checkpoint = l.image("image")
	if _, err := l.Create(within(t), r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.start("c1", ""); err == nil {
			t.Fatal("it was restored")
		}
		if left := l.groupsOf("c1"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	l.mustDelete("c1", "")
}

func TestDeleteActionRemovesTheGroupsOfAKilledRestore(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
	l.opts = l.halfRestoring("$shim")
	r := l.createRequest("c1", nil)
	r.Checkpoint = l.image("image")
	if _, err := l.Create(within(t), r); err != nil {
		t.Fatal(err)
	}
	if _, err := l.start("c1", ""); err == nil {
		t.Fatal("it was restored")
	}
	<-l.Done()
	l.killed = true
	if left := l.groupsOf("c1"); len(left) == 0 {
		t.Error("nothing was made")
	}
	l.cleanUp("c1")
	if left := l.groupsOf("c1"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	l.Close()
}

func TestDeleteActionRemovesTheGroupsOfAKilledCreate(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
	l.opts = l.halfCreating("$shim")
	if _, err := l.create("c1", nil); err == nil {
		t.Fatal("it was created")
	}
	<-l.Done()
	l.killed = true
	l.cleanUp("c1")
	if left := l.groupsOf("c1"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	l.Close()
}

// Two containers may be told to live in one control group. What is removed after a create that was cut
// short is not the other one's, and nobody waits for that to end, nor complains of it.
func TestFailedCreateLeavesTheGroupOfOthersAlone(t *testing.T) {
	for who, failing := range map[string]func(*lab) (*options.Options, map[string]step){
		"failed": func(*lab) (*options.Options, map[string]step) {
			return fake(), map[string]step{"create": {"error": "no luck"}}
		},
		"killed": func(*lab) (*options.Options, map[string]step) {
			return fake(), map[string]step{"create": {"signal": 9}}
		},
	} {
		t.Run(who, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper()})
			init := l.run("c1", nil)
			shared := sleeper()
			shared.CgroupsPath = l.cgroup("c1")
			before := l.groupsOf("c1")
			l.bundle("c2", shared)
			var script map[string]step
			l.opts, script = failing(l)
			l.script("c2", script)
			began := time.Now()
			if _, err := l.create("c2", nil); err == nil {
				t.Fatal("it was created")
			}
			l.cleanUp("c2")
			if took := time.Since(began); took > tolerant {
				t.Errorf("create and delete took %v", took)
			}
			l.opts = nil
			if after := l.groupsOf("c1"); len(after) != len(before) {
				t.Errorf("of the groups %v only %v are left", before, after)
			}
			if err := syscall.Kill(init, 0); err != nil {
				t.Errorf("the other container: %v", err)
			}
			l.finish("c1")
		})
	}
}

// The shim is killed while a hook hangs that runs outside of the container, as a child of the runtime. Nothing
// proves what it is, so it is named.
func TestKilledDuringAHookOutsideOfTheContainer(t *testing.T) {
	for _, when := range []string{"createRuntime", "poststart"} {
		t.Run(when, func(t *testing.T) {
			reached := filepath.Join(t.TempDir(), "reached")
			cfg := sleeper()
			cfg.Edit = func(s *specs.Spec) {
				script := "exec >/dev/null 2>&1; echo $$ >" + reached + ".new; mv " + reached + ".new " + reached + "; exec sleep 1000"
				hooks := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}
				s.Hooks = map[string]*specs.Hooks{"createRuntime": {CreateRuntime: hooks}, "poststart": {Poststart: hooks}}[when]
			}
			l := newLab(t, labConfig{bundle: cfg, relax: []order.Option{order.EndsInMiddle}})
			shim, ended := l.Pid(), make(chan struct{})
			go func() {
				defer close(ended)
				l.live(within(t), l.createRequest("c1", nil), 9)
			}()
			l.eventually("the hook runs", func() bool { return exists(reached) })
			hook, err := strconv.Atoi(strings.TrimSpace(l.read(reached)))
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(hook, syscall.SIGKILL) //nolint:errcheck // it may have ended
			if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-ended
			<-l.Done()
			l.killed = true
			cfgOf := l.Config
			cfgOf.ID, cfgOf.Bundle = "c1", filepath.Join(l.dir, "c1")
			l.eventually("the runtime is dead", func() bool {
				p, ok := proc.Read(hook)
				return ok && p.Parent != p.Group
			})
			_, warnings, err := client.Delete(context.Background(), cfgOf)
			if err != nil || strings.Count(warnings, "\n") != 1 || !strings.Contains(warnings, fmt.Sprintf("%d", hook)) {
				t.Errorf("delete action: %v; of hook %d it says %q", err, hook, warnings)
			}
			if err := syscall.Kill(hook, syscall.SIGKILL); err != nil {
				t.Errorf("the hook: %v", err)
			}
			l.noStrays()
			if left := l.groupsOf("c1"); len(left) > 0 {
				t.Errorf("groups are left: %v", left)
			}
			l.Close()
		})
	}
}

// The shim is killed while a hook hangs that runs in the container. The runtime has noted nothing by then.
func TestKilledDuringAHookThatHangs(t *testing.T) {
	reached := filepath.Join(t.TempDir(), "reached")
	cfg := sleeper()
	cfg.Edit = func(s *specs.Spec) {
		script := "exec >/dev/null 2>&1; : >" + reached + "; while :; do sleep 1; done"
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}}
	}
	l := newLab(t, labConfig{bundle: cfg, relax: []order.Option{order.EndsInMiddle}})
	shim, ended := l.Pid(), make(chan struct{})
	go func() {
		defer close(ended)
		l.live(within(t), l.createRequest("c1", nil), 9)
	}()
	l.eventually("the hook runs", func() bool { return exists(reached) })
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	<-l.Done()
	l.killed = true
	began := time.Now()
	l.cleanUp("c1")
	if took := time.Since(began); took > tolerant {
		t.Errorf("the delete action took %v", took)
	}
	l.noStrays()
	if left := l.groupsOf("c1"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	l.Close()
}

package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"

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

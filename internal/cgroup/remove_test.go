package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// left returns which groups of the sandbox are there.
func (s *sandbox) left() (left []string) {
	for _, dir := range s.dirs {
		if _, err := os.Stat(dir); err == nil {
			left = append(left, dir)
		}
	}
	return left
}

// alone says that nobody else lives in the groups.
func alone() []int { return nil }

func TestEmptyGroupsAreRemovedByTheirPath(t *testing.T) {
	s := newSandbox(t, false)
	if err := Remove(t.Context(), "/"+s.name, alone); err != nil {
		t.Error(err)
	}
	if left := s.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := Remove(t.Context(), "/"+s.name, alone); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestRemovalWaitsForTheLastProcess(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("exec sleep 1000")
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Remove(short, "/"+s.name, alone); !errors.Is(err, unix.EBUSY) {
		t.Errorf("with a process: %v", err)
	}
	if !alive(p.Process.Pid) {
		t.Error("the process has died")
	}
	done := make(chan error)
	go func() { done <- Remove(t.Context(), "/"+s.name, alone) }()
	time.AfterFunc(20*time.Millisecond, func() { _ = p.Process.Kill() })
	if err := <-done; err != nil {
		t.Error(err)
	}
	if left := s.left(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestGroupsWithGroupsAreNotRemoved(t *testing.T) {
	s := newSandbox(t, false)
	for _, dir := range s.dirs {
		s.mkdir(filepath.Join(dir, "below"))
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Remove(short, "/"+s.name, alone); err == nil {
		t.Error("no error")
	}
	if left := s.left(); len(left) != len(s.dirs) {
		t.Errorf("only %v are left", left)
	}
}

func TestGroupsOfOthersAreLeftAlone(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("exec sleep 1000")
	soon, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Remove(soon, "/"+s.name, func() []int { return []int{1, p.Process.Pid} }); err != nil {
		t.Error(err)
	}
	if soon.Err() != nil || !alive(p.Process.Pid) {
		t.Error("the process has died, or was waited for")
	}
	if left := s.left(); len(left) != len(s.dirs) {
		t.Errorf("only %v are left", left)
	}
}

func TestMembersOfGroupsByTheirPath(t *testing.T) {
	s := newSandbox(t, false)
	p := s.run("exec sleep 1000")
	if pids, err := Members("/" + s.name); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Errorf("members %v, %v", pids, err)
	}
	for _, none := range []string{"", "/", "/" + s.name + "/none", "system.slice:a:b"} {
		if pids, err := Members(none); err != nil || len(pids) > 0 {
			t.Errorf("members of %q: %v, %v", none, pids, err)
		}
	}
}

// The other container may come when it has begun, or when the time is over.
func TestOthersMayComeLater(t *testing.T) {
	for name, atTheEnd := range map[string]bool{"meanwhile": false, "at the end": true} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t, false)
			p := s.run("exec sleep 1000")
			soon, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			looks := 0
			err := Remove(soon, "/"+s.name, func() []int {
				if looks++; looks > 1 {
					return []int{p.Process.Pid}
				}
				if atTheEnd {
					cancel() // the time is over between two looks
				}
				return nil
			})
			if err != nil || looks != 2 || (soon.Err() != nil) != atTheEnd {
				t.Errorf("%d looks: %v", looks, err)
			}
		})
	}
}

func TestPathsOfSpecsAreFoundInEachHierarchy(t *testing.T) {
	ours := []membership{{controllers: []string{"memory"}, path: "/us"}, {controllers: []string{"name=systemd"}, path: "/"}, {unified: true, path: "/us/two"}}
	mounts := []mount{
		{options: []string{"rw", "memory"}, root: "/", point: "/c/memory"},
		{options: []string{"rw", "name=systemd"}, root: "/", point: "/c/systemd"},
		{unified: true, root: "/us", point: "/c/unified"},
	}
	for path, want := range map[string][]string{
		"/a/b":       {"/c/memory/a/b", "/c/systemd/a/b", "/c/unified/a/b"},
		"/a/../../b": {"/c/memory/b", "/c/systemd/b", "/c/unified/b"},
		"a":          {"/c/memory/us/a", "/c/systemd/a", "/c/unified/two/a"},
		"/":          nil,
		"..":         nil,
	} {
		got := named(path, ours, mounts)
		if len(got) != len(want) {
			t.Errorf("%q is at %q, want %q", path, got, want)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%q is at %q, want %q", path, got, want)
			}
		}
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/node"
)

// later is long after whatever a test has made.
func later() time.Time { return time.Now().Add(time.Hour) }

// collect runs gc on a made-up node, and returns what it says by the last part of the path.
func (n *fakeNode) collect(o gcOptions) map[string]verdict {
	n.t.Helper()
	o.cfg = n.cfg
	if o.now == nil {
		o.now = later
	}
	found, err := node.Read(n.t.Context(), n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	all := map[string]verdict{}
	for _, l := range found.Leaks {
		all[filepath.Base(l.Path)] = o.judge(n.t.Context(), l, abandonedRun{})
	}
	return all
}

// deadSocket leaves the file of a socket on which nobody listens.
func (n *fakeNode) deadSocket(id string) string {
	n.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket(id)})
	if err != nil {
		n.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		n.t.Fatal(err)
	}
	return n.socket(id)
}

// process adds one that is no shim.
func (n *fakeNode) process(pid int, cwd, cgroup string, started time.Time) {
	n.t.Helper()
	dir := fmt.Sprintf("proc/%d/", pid)
	ticks := int64(started.Sub(time.Unix(1700000000, 0)) / (time.Second / 100))
	n.write(dir+"cmdline", "sleep\x001000\x00")
	n.write(dir+"stat", fmt.Sprintf("%d (x) S 1 1 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 7 0 %d 5 6\n", pid, ticks))
	n.write(dir+"cgroup", cgroup)
	if err := os.Symlink(cwd, filepath.Join(n.dir, dir+"cwd")); err != nil {
		n.t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestOnlySocketsThatNobodyListensOnAreRemoved(t *testing.T) {
	needRoot(t)
	n := newFakeNode(t, 0, 0)
	dead := n.deadSocket("dead")
	// In none of the lists of sockets, as that of another network namespace.
	alive, err := net.Listen("unix", n.socket("alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	full := fullSocket(t, n.socket("full"))
	for _, yes := range []bool{false, true} {
		got := n.collect(gcOptions{yes: yes})
		want := map[bool]string{false: wouldRemove, true: removed}[yes]
		if v := got[filepath.Base(dead)]; v.Action != want || exists(dead) == yes {
			t.Errorf("yes %v: %+v", yes, v)
		}
		for _, path := range []string{n.socket("alive"), full} {
			if v := got[filepath.Base(path)]; v.Action != keep || !strings.Contains(v.Reason, "somebody listens") || !exists(path) {
				t.Errorf("yes %v: %+v", yes, v)
			}
		}
	}
	young := n.deadSocket("young")
	if v := n.collect(gcOptions{yes: true, now: time.Now})[filepath.Base(young)]; v.Action != keep || !exists(young) {
		t.Errorf("%+v", v)
	}
}

// fullSocket is one of a shim that is stuck: it takes no more connections.
func fullSocket(t *testing.T, path string) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		switch err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err {
		case nil:
		case unix.EAGAIN:
			return path
		default:
			t.Fatal(err)
		}
	}
}

func TestSocketIsNotRemovedWhileAShimMakesOne(t *testing.T) {
	n := newFakeNode(t, 0, 0)
	dead := n.deadSocket("dead")
	unlock, err := lockDirectory(filepath.Dir(dead))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- removeSocket(dead) }()
	select {
	case err := <-done:
		t.Errorf("removed without the lock: %v", err)
	case <-time.After(20 * lockPause):
	}
	// What the shim does meanwhile.
	if err := os.Remove(dead); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	unlock()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "somebody listens") || !exists(dead) {
		t.Errorf("error %v", err)
	}
}

func TestBundleIsKeptForAsLongAsAnythingMayNeedIt(t *testing.T) {
	needRoot(t)
	n := newFakeNode(t, 0, 0)
	n.write("proc/self/mountinfo", "1 0 8:1 / "+n.dir+"/state/ns/mounted/root\\040fs rw - ext4 /dev/x rw\n")
	bundle := func(id string) string {
		n.write("state/ns/"+id+"/config.json", "{}")
		return filepath.Join(n.dir, "state/ns", id)
	}
	now := time.Now()
	n.process(10, bundle("cwd"), "", now)
	n.process(11, bundle("below")+"/rootfs", "", now)
	n.process(12, "/", "9:pids:/a/cgroup/sub\n0::/\n", now)
	bundle("cgroup")
	n.process(13, "/", "0::/system.slice/cri-containerd-systemd.scope\n", now)
	bundle("systemd")
	n.write("state/ns/spec/config.json", `{"linux":{"cgroupsPath":"/my/own"}}`)
	n.process(14, "/", "9:pids:/my/own\n", now)
	n.process(15, "/", "", now.Add(-time.Hour))
	bundle("init")
	n.write("state/ns/init/init.pid", "15")
	bundle("broken")
	n.write("state/ns/broken/init.pid", "no number")
	bundle("mounted")
	n.write("state/ns/vsock/address", "vsock://3:1024")
	l, err := net.Listen("unix", n.socket("listened"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n.write("state/ns/listened/bootstrap.json", `{"address":"unix://`+n.socket("listened")+`"}`)
	// The shim of a pod is dead, and one container of it lives.
	dead := n.deadSocket("pod")
	n.write("state/ns/pod/address", "unix://"+dead)
	n.write("state/ns/app/bootstrap.json", `{"address":"unix://`+dead+`"}`)
	n.process(16, filepath.Join(n.dir, "state/ns/app"), "", now)
	// An action of a shim is at work.
	bundle("action")
	n.process(17, "/", "", now)
	n.write("proc/17/cmdline", "/x/containerd-shim-fake-v2\x00-namespace\x00ns\x00-id\x00action\x00delete\x00")

	got := n.collect(gcOptions{yes: true})
	for id, reason := range map[string]string{
		"cwd": "pid 10 works in it", "below": "pid 11 works in it", "cgroup": "pid 12 is in the control group",
		"systemd": "pid 13 is in", "spec": "pid 14 is in", "init": "may be pid 15", "broken": "cannot be understood",
		"mounted": "root fs is mounted", "vsock": "nobody can tell", "listened": "somebody listens", "pod": "container app of the same shim may be alive",
		"app": "pid 16 works", "action": "pid 17 is a shim",
	} {
		if v := got[id]; v.Action != keep || !strings.Contains(v.Reason, reason) || !exists(filepath.Join(n.dir, "state/ns", id)) {
			t.Errorf("%s: %+v, want %q", id, v, reason)
		}
	}
	if v := n.collect(gcOptions{yes: true, now: time.Now}); v["cwd"].Reason == "" || !strings.Contains(v["cwd"].Reason, "just been changed") {
		t.Errorf("%+v", v["cwd"])
	}
}

func TestDeadBundleIsRemovedAlthoughItsPidIsUsedAgain(t *testing.T) {
	needRoot(t)
	n := newFakeNode(t, 0, 0)
	n.write("proc/self/mountinfo", "")
	work := filepath.Join(n.dir, "root", managerState, "ns/reused")
	n.write("state/ns/reused/init.pid", "20")
	n.write("root/"+managerState+"/ns/reused/dump", "")
	n.write("state/ns/other/config.json", "{}")
	n.write("precious/file", "")
	for id, to := range map[string]string{"reused": work, "other": filepath.Join(n.dir, "precious")} {
		if err := os.Symlink(to, filepath.Join(n.dir, "state/ns", id, "work")); err != nil {
			t.Fatal(err)
		}
	}
	n.process(20, "/", "9:pids:/somebody/else\n", time.Now().Add(time.Minute))
	got := n.collect(gcOptions{yes: true})
	for _, id := range []string{"reused", "other"} {
		if v := got[id]; v.Action != removed || exists(filepath.Join(n.dir, "state/ns", id)) || exists(filepath.Join(n.dir, "state/ns", "."+id)) ||
			!strings.Contains(v.Reason, "no shim is named") {
			t.Errorf("%+v", v)
		}
	}
	if exists(work) {
		t.Error("the work directory is still there")
	}
	if !exists(filepath.Join(n.dir, "precious/file")) {
		t.Error("what a link led to was removed")
	}
}

func TestBundleIsCleanedUpByItsOwnShim(t *testing.T) {
	needRoot(t)
	rows := []struct {
		script, action, reason string
		left                   bool
	}{
		{`pwd > "$0.ran"; echo "$@" >> "$0.ran"`, removed, "its shim and its container are gone", false},
		{`echo "cannot umount" >&2`, removed, "cannot umount", false},
		{`echo broken >&2; exit 1`, failed, "broken", true},
	}
	for i, row := range rows {
		n := newFakeNode(t, 0, 0)
		n.write("proc/self/mountinfo", "")
		binary := filepath.Join(n.dir, "containerd-shim-fake-v2")
		if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+row.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		bundle := filepath.Join(n.dir, "state/ns/c1")
		n.write("state/ns/c1/shim-binary-path", binary)
		v := n.collect(gcOptions{yes: true})["c1"]
		if v.Action != row.action || !strings.Contains(v.Reason, row.reason) || exists(bundle) != row.left {
			t.Errorf("%+v", v)
		}
		if i > 0 {
			continue
		}
		ran, err := os.ReadFile(binary + ".ran")
		want := bundle + "\n-namespace ns -address  -publish-binary containerd -id c1 -bundle " + bundle + " delete\n"
		if err != nil || string(ran) != want {
			t.Errorf("%v: it was run with %q, want %q", err, ran, want)
		}
	}
}

func TestCollectionIsADryRunUnlessToldOtherwise(t *testing.T) {
	needRoot(t)
	n := newFakeNode(t, 1, 1)
	n.write("proc/self/mountinfo", "")
	n.write("state/ns/old/config.json", "{}")
	dead := n.deadSocket("dead")
	o := gcOptions{cfg: n.cfg, now: later}
	var out bytes.Buffer
	if err := gc(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	// The shim lives, so it is not even named. (Its socket is in no list, but it listens.)
	if !strings.Contains(out.String(), "2 to remove; holdfast gc --yes does it") || strings.Contains(out.String(), "state/ns/c001") ||
		!exists(dead) || !exists(filepath.Join(n.dir, "state/ns/old")) {
		t.Errorf("%s", &out)
	}
	o.yes = true
	out.Reset()
	if err := gc(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	if exists(dead) || exists(filepath.Join(n.dir, "state/ns/old")) || !exists(n.socket("c001")) || !exists(filepath.Join(n.dir, "state/ns/c001")) {
		t.Errorf("%s", &out)
	}
	out.Reset()
	o.json = true
	if err := gc(t.Context(), &out, o); err != nil || out.String() != "[]\n" {
		t.Errorf("%v: %s", err, &out)
	}
}

// realNode has the processes of this machine, and directories of its own.
func realNode(t *testing.T) (dir string, cfg node.Config) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hfr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir, node.Config{SocketDirs: []string{filepath.Join(dir, "s")}, StateDirs: []string{filepath.Join(dir, managerState)}}
}

// sleeper starts a process that works in dir, and ends it with the test.
func sleeper(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "sleep", "1000")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been waited for
		_ = cmd.Wait()
	})
	return cmd
}

func TestRealPidThatIsUsedAgainIsToldApart(t *testing.T) {
	needRoot(t)
	dir, cfg := realNode(t)
	stranger := sleeper(t, "/")
	bundle := node.Bundle{Namespace: "ns", ID: "hf-gc-c1", Dir: filepath.Join(dir, managerState, "ns/hf-gc-c1")}
	if err := os.MkdirAll(bundle.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(bundle.Dir, "init.pid")
	if err := os.WriteFile(file, []byte(strconv.Itoa(stranger.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if reason := node.Living(cfg, bundle); !strings.Contains(reason, "init process may be") {
		t.Errorf("a process that was there when the pid was noted: %q", reason)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	if reason := node.Living(cfg, bundle); reason != "" {
		t.Errorf("a process that is younger than the note: %q", reason)
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// machine is a made-up one.
type machine struct {
	t   *testing.T
	dir string
	cfg Config
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, dir: t.TempDir()}
	m.cfg = Config{
		ProcRoot: filepath.Join(m.dir, "proc"), SocketDirs: []string{filepath.Join(m.dir, "s")},
		StateDirs: []string{filepath.Join(m.dir, "state")},
	}
	m.write("proc/stat", "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n")
	m.write("proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n")
	m.write("proc/self/status", "no process")
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(to, name string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(to, m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// process adds one that works in cwd, a path on the machine.
func (m *machine) process(pid int, cwd string, args ...string) {
	m.t.Helper()
	dir := fmt.Sprintf("proc/%d/", pid)
	m.write(dir+"cmdline", strings.Join(args, "\x00")+"\x00")
	m.write(dir+"stat", fmt.Sprintf("%d (a b) c) S 1 1 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 7 0 12300 5 6\n", pid))
	m.write(dir+"smaps_rollup", "55-7f ---p 00000000 00:00 0 [rollup]\nRss: 5000 kB\nPss:  2000 kB\nPrivate_Dirty:  900 kB\n")
	m.link(m.path(cwd), dir+"cwd")
	m.link(args[0], dir+"exe")
	m.link("/dev/null", dir+"fd/0")
}

// listen makes a process listen on a socket of the machine.
func (m *machine) listen(pid, fd, inode int, path string) {
	m.t.Helper()
	m.link(fmt.Sprintf("socket:[%d]", inode), fmt.Sprintf("proc/%d/fd/%d", pid, fd))
	f, err := os.OpenFile(m.path("proc/net/unix"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	// The second line is a connection to it.
	fmt.Fprintf(f, "0000: 00000002 00000000 00010000 0001 01 %d %s\n0000: 00000003 00000000 00000000 0001 03 %d %s\n",
		inode, path, inode+1000, path)
}

// socket makes the file of a socket on which nobody listens.
func (m *machine) socket(name string) string {
	m.t.Helper()
	// The path of a socket is short; that of a test's directory may be long.
	m.t.Chdir(m.dir)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name})
	if err != nil {
		m.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		m.t.Fatal(err)
	}
	return m.path(name)
}

func (m *machine) read() *Node {
	m.t.Helper()
	n, err := Read(m.t.Context(), m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

const manager = "/run/containerd/containerd.sock"

func (m *machine) address(group string) string {
	return addressScheme + m.path("s/"+socketName(manager, "ns", group))
}

func shimArgs(id string, more ...string) []string {
	return append([]string{"/usr/bin/containerd-shim-runc-v2", "-namespace", "ns", "-id", id, "-address", manager}, more...)
}

func TestShimsAreFoundWithAllThatIsKnown(t *testing.T) {
	m := newMachine(t)
	m.write("state/ns/pod/config.json", `{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`)
	m.write("state/ns/pod/bootstrap.json", `{"version":3,"address":"`+m.address("pod")+`","protocol":"ttrpc"}`)
	m.write("state/ns/app/address", m.address("pod"))
	m.process(70, "state/ns/pod", shimArgs("pod")...)
	m.listen(70, 3, 500, strings.TrimPrefix(m.address("pod"), addressScheme))
	m.process(71, "elsewhere", "/usr/bin/containerd-shimmy", "-id", "x")
	m.process(72, "elsewhere", "/usr/bin/sleep", "containerd-shim-runc-v2", "-id", "x")
	m.process(73, "state/ns/pod", shimArgs("pod", "start")...)
	m.process(74, "state/ns/pod", shimArgs("pod", "-bundle", "b", "delete")...)

	want := []Shim{{
		Pid: 70, Namespace: "ns", ID: "pod", Group: "pod", Address: m.address("pod"), Manager: manager,
		Exe: "/usr/bin/containerd-shim-runc-v2", Bundle: m.path("state/ns/pod"),
		Bundles: []Bundle{
			{"ns", "app", m.path("state/ns/app"), m.address("pod")},
			{"ns", "pod", m.path("state/ns/pod"), m.address("pod")},
		},
		Started: time.Unix(1700000123, 0), Threads: 7, Files: 2,
		Memory: Memory{5000 << 10, 2000 << 10, 900 << 10},
	}}
	n := m.read()
	// Version is that of a program of this host, if it is there.
	if diff := cmp.Diff(want, n.Shims, cmpopts.IgnoreUnexported(Shim{}), cmpopts.IgnoreFields(Shim{}, "Version")); diff != "" {
		t.Error(diff)
	}
	if len(n.Leaks) != 0 {
		t.Errorf("leaks: %+v", n.Leaks)
	}
}

func TestOurShimsTellWhereTheyBelong(t *testing.T) {
	for _, removed := range []bool{false, true} {
		m := newMachine(t)
		m.process(5, "elsewhere", shimArgs("c1")...)
		if err := os.Remove(m.path("proc/5/cwd")); err != nil {
			t.Fatal(err)
		}
		m.link("/", "proc/5/cwd")
		m.write("proc/5/environ", "HOME=/\x00HOLDFAST_SOCKET=/s/ours\x00HOLDFAST_GROUP=g\x00")
		m.link(m.path("any/other/log"), "proc/5/fd/2")
		if removed {
			m.link(m.path("any/c1/panic.log")+removedSuffix, "proc/5/fd/3")
		} else {
			m.write("any/c1/config.json", "{}")
			m.link(m.path("any/c1/log"), "proc/5/fd/3")
		}
		n := m.read()
		s, bundle, leaks := n.Shims[0], m.path("any/c1"), 0
		if removed {
			bundle, leaks = "", 1
		}
		if s.Address != "unix:///s/ours" || s.Group != "g" || s.Bundle != bundle || len(n.Leaks) != leaks {
			t.Errorf("removed %v: %+v, leaks %+v", removed, s, n.Leaks)
		}
	}
}

func TestSocketOfAShimIsToldFromItsOthers(t *testing.T) {
	rows := []struct {
		name, spec, noted string
		paths             []string // by descriptor
		want, group       string
	}{
		{"by its name", "", "", []string{"/s/other", "/s/" + socketName(manager, "ns", "c1")}, "unix:///s/" + socketName(manager, "ns", "c1"), "c1"},
		{
			"by the name of the group", `{"annotations":{"io.containerd.runc.v2.group":"g"}}`, "unix:///s/noted",
			[]string{"/s/" + socketName(manager, "ns", "c1"), "/s/" + socketName(manager, "ns", "g")},
			"unix:///s/" + socketName(manager, "ns", "g"), "g",
		},
		{"by the bundle", "", "unix:///s/noted", []string{"/s/debug", "/s/noted"}, "unix:///s/noted", "c1"},
		{"by the first", "", "", []string{"/s/first", "/s/second"}, "unix:///s/first", "c1"},
		{"abstract ones do not count", "", "", []string{"@/s/first"}, "", "c1"},
		{"by the bundle alone", "", "unix:///s/noted", nil, "unix:///s/noted", "c1"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := newMachine(t)
			m.process(9, "state/ns/c1", shimArgs("c1")...)
			m.write("state/ns/c1/log", "")
			if row.spec != "" {
				m.write("state/ns/c1/config.json", row.spec)
			}
			if row.noted != "" {
				m.write("state/ns/c1/address", row.noted)
			}
			for i, path := range row.paths {
				m.listen(9, 3+5*i, 900-i, path) // descriptor 13 comes after 8
			}
			if s := m.read().Shims[0]; s.Address != row.want || s.Group != row.group {
				t.Errorf("address %q, group %q; want %q, %q", s.Address, s.Group, row.want, row.group)
			}
		})
	}
}

func TestWhatHasEndedIsLeftOut(t *testing.T) {
	m := newMachine(t)
	for pid := 10; pid < 20; pid++ {
		m.process(pid, "b", shimArgs("c")...)
	}
	remove := func(names ...string) {
		for _, name := range names {
			if err := os.RemoveAll(m.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove("proc/10/stat", "proc/11/cmdline", "proc/12/fd", "proc/13/cwd", "proc/14/exe", "proc/15/smaps_rollup")
	m.write("proc/16/stat", "16 (x) Z 1 1 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 1 0 12300 5 6\n")
	// Its first thread has ended, and another one not yet.
	m.write("proc/19/stat", "19 (x) Z 1 1 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 2 0 12300 5 6\n")
	m.write("proc/17/cmdline", "")
	m.write("proc/18/stat", "18 (x) S 1")
	var pids []int
	for _, s := range m.read().Shims {
		pids = append(pids, s.Pid)
	}
	if diff := cmp.Diff([]int{12, 13, 14, 15, 19}, pids); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, m.cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled search ends with %v", err)
	}
	m.cfg.ProcRoot = m.path("none")
	if _, err := Read(t.Context(), m.cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a process table: %v", err)
	}
}

func TestLeaksAreToldByKind(t *testing.T) {
	m := newMachine(t)
	dead := m.socket("s/" + socketName("", "ns", "dead"))
	m.socket("s/not-called-like-one")
	m.write("s/"+socketName("", "ns", "a file"), "")
	live := m.socket("s/" + socketName(manager, "ns", "alive"))
	m.process(5, "state/ns/alive", shimArgs("alive")...)
	m.write("state/ns/alive/config.json", "{}")
	m.listen(5, 3, 50, live)
	// Works in a directory that is gone, and has another one's name.
	m.process(6, "gone", shimArgs("lost")...)
	// The shim of the first is dead, the second has just been made, the third is being removed.
	m.write("state/ns/old/address", "unix://"+dead)
	m.write("state/ns/new/config.json", "{}")
	m.write("state/ns/.removed/config.json", "{}")

	want := []Leak{
		{Kind: SocketWithoutProcess, Path: dead, Address: addressScheme + dead},
		{Kind: ProcessWithoutBundle, Path: m.path("gone"), Namespace: "ns", ID: "lost", Pid: 6},
		{Kind: BundleWithoutShim, Path: m.path("state/ns/new"), Namespace: "ns", ID: "new"},
		{Kind: BundleWithoutShim, Path: m.path("state/ns/old"), Namespace: "ns", ID: "old", Address: addressScheme + dead},
	}
	got := m.read().Leaks
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Leak{}, "Since")); diff != "" {
		t.Error(diff)
	}
	for _, l := range got {
		if l.Since.IsZero() {
			t.Errorf("%+v has no time", l)
		}
	}
}

func TestStateDirectoriesOfLivingShimsAreSearched(t *testing.T) {
	m := newMachine(t)
	state := "run/other/" + stateName
	m.process(5, state+"/ns/c1", shimArgs("c1")...)
	m.write(state+"/ns/c1/config.json", "{}")
	m.write(state+"/ns/c2/config.json", "{}")
	n := m.read()
	if len(n.Shims) != 1 || n.Shims[0].Bundle != m.path(state+"/ns/c1") {
		t.Errorf("shims: %+v", n.Shims)
	}
	if len(n.Leaks) != 1 || n.Leaks[0].ID != "c2" {
		t.Errorf("leaks: %+v", n.Leaks)
	}
}

func TestLookupFindsTheShimOfAContainer(t *testing.T) {
	m := newMachine(t)
	shim := func(pid int, ns, id string) {
		m.process(pid, "state/"+ns+"/"+id, "/x/containerd-shim-y-v2", "-namespace="+ns, "--id", id)
		m.write("state/"+ns+"/"+id+"/address", fmt.Sprintf("unix:///s/%d", pid))
		m.listen(pid, 3, pid, fmt.Sprintf("/s/%d", pid))
	}
	shim(5, "ns", "pod")
	shim(6, "ns", "twice")
	shim(7, "other", "twice")
	m.write("state/ns/app/address", "unix:///s/5")
	rows := []struct {
		ns, id string
		pid    int
		err    error
		text   string
	}{
		{"ns", "pod", 5, nil, ""},
		{"", "app", 5, nil, ""},
		{"ns", "app", 5, nil, ""},
		{"ns", "twice", 6, nil, ""},
		{"", "twice", 0, errdefs.ErrFailedPrecondition, "pid 6 in namespace ns, pid 7 in namespace other; name the namespace"},
		{"other", "app", 0, errdefs.ErrNotFound, "cannot find the shim of app in namespace other"},
		{"", "nobody", 0, errdefs.ErrNotFound, "holdfast ls"},
		{"", "", 0, errdefs.ErrInvalidArgument, "without the id"},
	}
	for _, row := range rows {
		s, err := Lookup(t.Context(), m.cfg, row.ns, row.id)
		if s.Pid != row.pid || !errors.Is(err, row.err) || (err != nil && !strings.Contains(err.Error(), row.text)) {
			t.Errorf("%s/%s: pid %d, %v; want pid %d, %v", row.ns, row.id, s.Pid, err, row.pid, row.err)
		}
	}
}

func TestPidThatIsUsedAgainIsNotTheShim(t *testing.T) {
	m := newMachine(t)
	m.process(5, "b", shimArgs("c1")...)
	s := m.read().Shims[0]
	if !s.Alive(m.cfg) {
		t.Error("it is alive")
	}
	stat, err := os.ReadFile(m.path("proc/5/stat"))
	if err != nil {
		t.Fatal(err)
	}
	m.write("proc/5/stat", strings.Replace(string(stat), "12300", strconv.Itoa(12301), 1))
	if s.Alive(m.cfg) {
		t.Error("another process is taken for it")
	}
	if err := os.RemoveAll(m.path("proc/5")); err != nil {
		t.Fatal(err)
	}
	if s.Alive(m.cfg) {
		t.Error("it has ended")
	}
}

package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// table is a process table, directories of sockets and of bundles, all of our own.
type table struct {
	t    *testing.T
	cfg  Config
	unix strings.Builder // /proc/net/unix
	pids []string        // directories in the process table
}

func newTable(t *testing.T) *table {
	t.Helper()
	dir := t.TempDir()
	tab := &table{t: t, cfg: Config{
		Proc: filepath.Join(dir, "proc"), Sockets: []string{filepath.Join(dir, "s"), filepath.Join(dir, "none")},
		States: []string{filepath.Join(dir, "tasks"), filepath.Join(dir, "none")},
	}}
	tab.unix.WriteString("Num       RefCount Protocol Flags    Type St Inode Path\n")
	tab.file("proc/stat", "cpu 1\nbtime 1000\n")
	tab.dir("s")
	return tab
}

func (tab *table) path(name string) string {
	return filepath.Join(filepath.Dir(tab.cfg.Proc), name)
}

func (tab *table) dir(name string) {
	tab.t.Helper()
	if err := os.MkdirAll(tab.path(name), 0o700); err != nil {
		tab.t.Fatal(err)
	}
}

func (tab *table) file(name, content string) {
	tab.t.Helper()
	tab.dir(filepath.Dir(name))
	if err := os.WriteFile(tab.path(name), []byte(content), 0o600); err != nil {
		tab.t.Fatal(err)
	}
}

func (tab *table) link(name, target string) {
	tab.t.Helper()
	tab.dir(filepath.Dir(name))
	if err := os.Symlink(target, tab.path(name)); err != nil {
		tab.t.Fatal(err)
	}
}

// process enters a process that listens on the socket at path, unless that is empty.
func (tab *table) process(pid int, path string, args ...string) {
	tab.t.Helper()
	dir := fmt.Sprintf("proc/%d", pid)
	tab.file(dir+"/cmdline", strings.Join(args, "\x00")+"\x00")
	tab.file(dir+"/stat", fmt.Sprintf("%d (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 9 18 250 22\n", pid))
	tab.file(dir+"/smaps_rollup", "Rss: 9 kB\nPrivate_Dirty:      1030 kB\n")
	tab.link(dir+"/exe", "/usr/bin/"+filepath.Base(args[0])+" (deleted)")
	tab.link(dir+"/ns/net", "net:[1]")
	tab.link(dir+"/fd/0", "/dev/null")
	if path != "" {
		tab.link(dir+"/fd/7", fmt.Sprintf("socket:[%d]", 5000+pid))
		fmt.Fprintf(&tab.unix, "0: 00000002 00000000 00010000 0001 01 %d %s\n", 5000+pid, path)
		fmt.Fprintf(&tab.unix, "0: 00000003 00000000 00000000 0001 03 %d %s\n", 9000+pid, path)
	}
	tab.pids = append(tab.pids, dir)
	for _, dir := range tab.pids { // they share a network
		tab.file(dir+"/net/unix", tab.unix.String())
	}
}

func serve(namespace, id string) []string {
	return []string{"/usr/bin/containerd-shim-any-v2", "-namespace", namespace, "-id", id, "-address", "/run/m.sock"}
}

func (tab *table) find() Node {
	tab.t.Helper()
	n, err := Find(tab.t.Context(), tab.cfg)
	if err != nil {
		tab.t.Fatal(err)
	}
	return n
}

func TestShimsAreFoundByHowTheyAreStarted(t *testing.T) {
	tab := newTable(t)
	tab.process(11, "/run/s/a", append(serve("default", "web"), "-debug")...)
	tab.process(12, "/run/s/b", "shim", "--namespace=k8s.io", "--id=pod", "--address=/run/m.sock", "-publish-binary", "")
	tab.process(13, "", append(serve("default", "web"), "start")...)
	tab.process(14, "", append(serve("default", "web"), "-bundle", "/b", "delete")...)
	tab.process(15, "", "runc", "--root", "/run/runc", "-id", "x", "-namespace", "y", "-address", "z", "create")
	tab.process(16, "", "containerd-shim-any-v2", "-namespace", "default")
	tab.file("proc/17/cmdline", "") // a thread of the kernel
	tab.dir("proc/18")              // ends while we look
	want := []Shim{
		{
			Pid: 11, Namespace: "default", Group: "web", Manager: "/run/m.sock", Address: "unix:///run/s/a", Threads: 9, Files: 2,
			Program: "/usr/bin/containerd-shim-any-v2", Started: time.Unix(1002, 5e8), Private: 1030 << 10,
		},
		{
			Pid: 12, Namespace: "k8s.io", Group: "pod", Manager: "/run/m.sock", Address: "unix:///run/s/b", Threads: 9, Files: 2,
			Program: "/usr/bin/shim", Started: time.Unix(1002, 5e8), Private: 1030 << 10,
		},
	}
	if diff := cmp.Diff(want, tab.find().Shims); diff != "" {
		t.Error(diff)
	}
}

func TestBundlesAndSocketsAreGivenToTheirShims(t *testing.T) {
	tab := newTable(t)
	tab.process(11, "/run/s/pod", serve("k8s.io", "pod")...)
	tab.process(12, "/run/s/web", serve("default", "web")...)
	tab.file("tasks/k8s.io/pod/address", "unix:///run/s/pod\n")
	tab.file("tasks/k8s.io/app/bootstrap.json", `{"version":3,"address":"unix:///run/s/pod"}`)
	tab.file("tasks/default/web/config.json", "{}") // says nothing of an address
	tab.file("tasks/default/lost/address", "unix:///run/s/lost")
	tab.file("tasks/default/odd/bootstrap.json", "no JSON")
	if err := unix.Mkfifo(tab.path("tasks/default/odd/address"), 0o600); err != nil {
		t.Fatal(err)
	}
	tab.file("s/no-socket", "")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tab.path("s/dead")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	alive, err := net.Listen("unix", tab.path("s/alive"))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()

	n := tab.find()
	got := map[string][]string{}
	for _, s := range n.Shims {
		got[s.Group] = s.Containers()
	}
	if diff := cmp.Diff(map[string][]string{"pod": {"app", "pod"}, "web": {"web"}}, got); diff != "" {
		t.Error(diff)
	}
	left := []Bundle{
		{Namespace: "default", ID: "lost", Path: tab.path("tasks/default/lost"), Address: "unix:///run/s/lost"},
		{Namespace: "default", ID: "odd", Path: tab.path("tasks/default/odd")},
	}
	undated := cmpopts.IgnoreTypes(time.Time{})
	if diff := cmp.Diff(left, n.Bundles, undated); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Socket{{Path: tab.path("s/dead")}}, n.Sockets, undated); diff != "" {
		t.Error(diff)
	}
}

func TestLookupFindsOneShim(t *testing.T) {
	tab := newTable(t)
	tab.process(11, "/run/s/pod", serve("k8s.io", "pod")...)
	tab.process(12, "/run/s/a", serve("k8s.io", "web")...)
	tab.process(13, "/run/s/b", serve("default", "web")...)
	tab.process(14, "", serve("default", "deaf")...)
	tab.file("tasks/k8s.io/app/address", "unix:///run/s/pod")
	tab.file("tasks/k8s.io/pod/address", "unix:///run/s/pod")
	for _, row := range []struct {
		namespace, id string
		pid           int
		kind          error
		says          string
	}{
		{"", "app", 11, nil, ""},
		{"k8s.io", "pod", 11, nil, ""},
		{"k8s.io", "web", 12, nil, ""},
		{"default", "web", 13, nil, ""},
		{"", "web", 0, errdefs.ErrFailedPrecondition, "default (pid 13), k8s.io (pid 12)"},
		{"default", "app", 0, errdefs.ErrNotFound, "no running shim"},
		{"", "deaf", 0, errdefs.ErrNotFound, "no running shim"},
	} {
		s, err := Lookup(t.Context(), tab.cfg, row.namespace, row.id)
		if s.Pid != row.pid || !errors.Is(err, row.kind) || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s/%s: pid %d, %v; want pid %d, %v", row.namespace, row.id, s.Pid, err, row.pid, row.kind)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	tab := newTable(t)
	tab.cfg.Sockets = []string{tab.path("s")}
	for _, broken := range []Config{
		{Proc: tab.path("none"), Sockets: tab.cfg.Sockets, States: tab.cfg.States},
		{Proc: tab.cfg.Proc, Sockets: []string{tab.path("proc/stat")}, States: tab.cfg.States},
		{Proc: tab.cfg.Proc, Sockets: tab.cfg.Sockets, States: []string{tab.path("proc/stat")}},
	} {
		if _, err := Find(t.Context(), broken); err == nil {
			t.Errorf("no error with %+v", broken)
		}
	}
}

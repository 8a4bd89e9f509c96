package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden reads a file of testdata.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// directories finds the groups of a process in the mounts, by controller ("" for version 2).
func directories(t *testing.T, members, mounts string) map[string]string {
	t.Helper()
	found := map[string]string{}
	all := parseMounts(golden(t, mounts))
	for _, m := range parseMemberships(golden(t, members)) {
		for _, mnt := range all {
			dir, ok := mnt.directory(m.path)
			if ok && mnt.carries(m) {
				found[strings.Join(m.controllers, ",")] = dir
				break
			}
		}
	}
	return found
}

func TestGroupsAreFoundInEveryLayout(t *testing.T) {
	const pod = "/kubepods.slice/kubepods-pod7a.slice/cri-containerd-9f.scope"
	for _, row := range []struct {
		layout  string
		unified bool
		want    map[string]string
	}{
		{"v1", false, map[string]string{
			"cpu,cpuacct":      "/sys/fs/cgroup/cpu,cpuacct/default/c1",
			"memory":           "/sys/fs/cgroup/memory/default/c1",
			"freezer":          "/sys/fs/cgroup/freezer/default/c1",
			"pids":             "/sys/fs/cgroup/pids/default/c1",
			"net_cls,net_prio": "/sys/fs/cgroup/net_cls,net_prio/default/c1",
			"name=systemd":     "/sys/fs/cgroup/systemd/default/c1",
		}},
		{"hybrid", false, map[string]string{
			"memory":       "/sys/fs/cgroup/memory/k8s.io/c:1",
			"freezer":      "/sys/fs/cgroup/freezer/k8s.io/c:1",
			"pids":         "/sys/fs/cgroup/pids/k8s.io/c:1",
			"name=systemd": "/sys/fs/cgroup/systemd/system.slice/containerd.service",
			"":             "/sys/fs/cgroup/unified/system.slice/containerd.service",
		}},
		{"v2", true, map[string]string{"": "/sys/fs/cgroup" + pod}},
		// Version 2 for everything but a version 1 hierarchy that some firewall mounted.
		{"v2-netcls", true, map[string]string{"net_cls": "/sys/fs/cgroup/net_cls", "": "/sys/fs/cgroup" + pod}},
		// We are in a container without a cgroup namespace: the mounts show a part only.
		{"bind", false, map[string]string{
			"memory": "/sys/fs/cgroup/memory/default/inner",
			"pids":   "/sys/fs/cgroup/pids/default/inner",
			// The freezer's mount shows another container only.
		}},
		// We are in a container with a cgroup namespace; the process is outside of it.
		{"outside", true, map[string]string{}},
		// The mount was made outside of our cgroup namespace, which starts two levels down.
		{"above", true, map[string]string{"": "/host cgroup/c2"}},
	} {
		t.Run(row.layout, func(t *testing.T) {
			got := directories(t, row.layout+".cgroup", row.layout+".mountinfo")
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("directories (-want +got):\n%s", diff)
			}
			if got := isUnified(parseMemberships(golden(t, row.layout+".cgroup"))); got != row.unified {
				t.Errorf("unified: %v", got)
			}
		})
	}
}

func TestMalformedMembershipsAreLeftOut(t *testing.T) {
	got := parseMemberships([]byte("\nx\n3\n4:memory\n:memory:/a\nx:pids:/a\n5:cpu:relative\n0:pids:/v1\n7::/not2\n6:blkio:/ok:1\n"))
	if len(got) != 2 || got[0].controllers[0] != "pids" || got[1].path != "/ok:1" {
		t.Errorf("got %+v", got)
	}
}

func TestEscapesInMountinfoAreUndone(t *testing.T) {
	for in, want := range map[string]string{
		`/plain`: "/plain", `/a\040b\134c`: `/a b\c`, `/end\04`: `/end\04`, `/bad\999x`: `/bad\999x`, `\011`: "\t", `/\`: `/\`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWithinIsByPathElement(t *testing.T) {
	for _, row := range []struct {
		path, top string
		want      bool
	}{
		{"/a/b", "/a/b", true}, {"/a/b/c", "/a/b", true}, {"/a/bc", "/a/b", false},
		{"/a", "/a/b", false}, {"/a", "/", true}, {"/", "/", true}, {"/", "/a", false},
	} {
		if got := within(row.path, row.top); got != row.want {
			t.Errorf("within(%q, %q) = %v", row.path, row.top, got)
		}
	}
}

func FuzzMemberships(f *testing.F) {
	for _, name := range []string{"v1", "hybrid", "v2", "bind", "outside"} {
		f.Add(golden(f, name+".cgroup"))
	}
	f.Add([]byte("0::/gone (deleted)\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMemberships(b) {
			if !strings.HasPrefix(m.path, "/") || m.unified != (len(m.controllers) == 0) {
				t.Errorf("%+v", m)
			}
		}
	})
}

func FuzzMounts(f *testing.F) {
	for _, name := range []string{"v1", "hybrid", "v2", "bind", "above"} {
		f.Add(golden(f, name+".mountinfo"), "/a/b")
	}
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		for _, m := range parseMounts(b) {
			dir, ok := m.directory(path)
			if clean := filepath.Clean(m.point); ok && dir != clean && !within(dir, clean) {
				t.Errorf("%q in %+v is %q, outside of the mount", path, m, dir)
			}
		}
	})
}

package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDaemonsEnvironmentIsAllowListed is the census of demand.md 134.
func TestDaemonsEnvironmentIsAllowListed(t *testing.T) {
	for version, addresses := range map[string][]string{
		"1.6": nil,
		"2.4": {"GRPC_ADDRESS", "NAMESPACE", "MAX_SHIM_VERSION"},
	} {
		t.Run(version, func(t *testing.T) {
			m := newManager(t, version)
			m.env = append(m.env, "OTEL_A=1", "TRACEPARENT=00-1", "HOLDFAST_X=y", "HOLDFAST_SOCKET=/stranger", "HOLDFAST_CHILD_GOMAXPROCS=9", "GODEBUG=x=1",
				"OTHER=1", "HTTPS_PROXY=http://u:p@h", "PATHOLOGY=1")
			m.bundle("c1", nil)
			socket := m.mustStart("c1", nil)
			var names []string
			env := map[string]string{}
			for entry := range strings.SplitSeq(strings.TrimRight(readText(t, fmt.Sprintf("/proc/%d/environ", daemonOf(t, socket))), "\x00"), "\x00") {
				name, value, _ := strings.Cut(entry, "=")
				names, env[name] = append(names, name), value
			}
			slices.Sort(names)
			want := append([]string{
				"GODEBUG", "GOMAXPROCS", "GORACE", "HOLDFAST_CHILD_GOMAXPROCS", "HOLDFAST_GROUP", "HOLDFAST_PASS_ENV", "HOLDFAST_SOCKET", "HOLDFAST_X",
				"OTEL_A", "PATH", "TRACEPARENT", "TTRPC_ADDRESS",
			}, addresses...)
			if testing.CoverMode() != "" {
				want = append(want, "GOCOVERDIR")
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, names); diff != "" {
				t.Error(diff)
			}
			if env["GOMAXPROCS"] != "1" || env["HOLDFAST_CHILD_GOMAXPROCS"] != "2" {
				t.Errorf("processors of the daemon %s, of its children %s", env["GOMAXPROCS"], env["HOLDFAST_CHILD_GOMAXPROCS"])
			}
			if env["HOLDFAST_SOCKET"] != socket || env["HOLDFAST_GROUP"] != "c1" || env["TTRPC_ADDRESS"] != m.address+".ttrpc" {
				t.Errorf("environment is %v", env)
			}
		})
	}
}

// TestDaemonInheritsNoDescriptor is demand.md 58: the manager has descriptor 200 open.
func TestDaemonInheritsNoDescriptor(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	stranger, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	m.files = make([]*os.File, 198)
	m.files[0], m.files[1], m.files[7], m.files[197] = stranger, stranger, stranger, stranger
	pid := daemonOf(t, m.mustStart("c1", nil))
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	for _, fd := range fileNames(t, dir) {
		if link, err := os.Readlink(filepath.Join(dir, fd)); err == nil && link == stranger.Name() {
			t.Errorf("descriptor %s is the manager's", fd)
		}
	}
	if exists(filepath.Join(dir, "200")) {
		t.Error("descriptor 200 is open")
	}
	// One listener and no pipe: start's has served its purpose.
	for _, fd := range fileNames(t, dir) {
		if link, err := os.Readlink(filepath.Join(dir, fd)); err == nil && strings.HasPrefix(link, "pipe:") {
			t.Errorf("descriptor %s is %s", fd, link)
		}
	}
}

// TestStartPermissionsUnderAnyUmask is demand.md 132 with a real start.
func TestStartPermissionsUnderAnyUmask(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		m := newManager(t, "2.4")
		m.umask = umask
		bundle := m.bundle("c1", nil)
		socket := m.mustStart("c1", nil)
		for path, want := range map[string]os.FileMode{
			filepath.Join(bundle, "address"): 0o644, filepath.Dir(socket): 0o700, socket: 0o600,
		} {
			if got := fileMode(t, path); got != want {
				t.Errorf("umask %03o: %s has mode %o, want %o", umask, path, got, want)
			}
		}
	}
}

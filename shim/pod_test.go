package shim

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pod makes bundles of a pod p with the containers p, a and b, of another pod, and of a container
// by itself, all served on socket, and a runtime that knows them.
func pod(t *testing.T, m *manager, socket string) (calls func() []string) {
	t.Helper()
	ids := map[string]string{"p": "p", "a": "p", "b": "p", "other": "q", "alone": ""}
	o, calls := noted(t, "", "p", "a", "b", "other", "alone", "stranger", "joined", "guest")
	for id, sandbox := range ids {
		kind := "container"
		if id == sandbox {
			kind = "sandbox"
		}
		bundle := m.bundle(id, map[string]string{sandboxAnnotation: sandbox, containerAnnotation: kind})
		writeText(t, filepath.Join(bundle, "address"), "unix://"+socket)
		m.save(id, o)
	}
	// Of the same pod, but with a daemon of its own, which may be alive.
	bundle := m.bundle("stranger", map[string]string{sandboxAnnotation: "p"})
	writeText(t, filepath.Join(bundle, "address"), "unix:///run/elsewhere")
	m.save("stranger", o)
	// In the group of a container that is no sandbox.
	bundle = m.bundle("guest", map[string]string{groupAnnotation: "alone"})
	writeText(t, filepath.Join(bundle, "address"), "unix://"+socket)
	m.save("guest", o)
	// Joined by the manager itself, which leaves its own record (contract 1.5).
	bundle = m.bundle("joined", map[string]string{sandboxAnnotation: "p"})
	writeText(t, filepath.Join(bundle, "bootstrap.json"), `{"version":3,"address":"unix://`+socket+`","protocol":"ttrpc"}`)
	m.save("joined", o)
	return calls
}

// TestDeathOfAPodsDaemonEndsThePod is surprise 4 of managers.md, with each state of the socket.
func TestDeathOfAPodsDaemonEndsThePod(t *testing.T) {
	whole := []string{"a", "b", "joined", "p"}
	for _, c := range []struct {
		name, id string
		socket   string // alive, dead, absent
		want     []string
		left     bool // the socket is left
	}{
		{"sandbox, dead", "p", "dead", whole, false},
		{"sandbox, absent", "p", "absent", whole, false},
		{"sandbox, alive", "p", "alive", []string{"p"}, true},
		{"container, dead", "a", "dead", []string{"a"}, true},
		{"container, absent", "a", "absent", []string{"a"}, false},
		{"alone, dead", "alone", "dead", []string{"alone", "guest"}, false},
		{"alone, absent", "alone", "absent", []string{"alone"}, false},
		{"alone, alive", "alone", "alive", []string{"alone"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, "2.4")
			socket := filepath.Join(m.sockets, "x")
			calls := pod(t, m, socket)
			if c.socket != "absent" {
				l, err := listen(socket)
				if err != nil {
					t.Fatal(err)
				}
				if c.socket == "dead" {
					l.Close()
				} else {
					defer l.Close()
				}
			}
			if _, complaint := m.mustDelete(c.id); complaint != "" {
				t.Errorf("complained %q", complaint)
			}
			if diff := cmp.Diff(c.want, calls()); diff != "" {
				t.Error(diff)
			}
			if exists(socket) != c.left {
				t.Errorf("the socket is there: %v", exists(socket))
			}
		})
	}
}

// TestPodIsLeftAloneWithoutARecord has a sandbox whose bundle does not say where its daemon was.
func TestPodIsLeftAloneWithoutARecord(t *testing.T) {
	for name, text := range map[string]string{"none": "", "nonsense": "vsock://3:1", "relative": "unix://x"} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, "2.4")
			calls := pod(t, m, "/run/gone")
			path := filepath.Join(m.state, "p", "address")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if text != "" {
				writeText(t, path, text)
			}
			m.mustDelete("p")
			if diff := cmp.Diff([]string{"p"}, calls()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAllOfAPodIsDeletedAtOnce is what containerd 2.4 does after a crash of the daemon.
func TestAllOfAPodIsDeletedAtOnce(t *testing.T) {
	m := newManager(t, "2.4")
	socket := filepath.Join(m.sockets, "x")
	pod(t, m, socket)
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	var all sync.WaitGroup
	for _, id := range []string{"p", "a", "b", "joined"} {
		all.Go(func() {
			if _, complaint := m.mustDelete(id); complaint != "" {
				t.Errorf("%s: complained %q", id, complaint)
			}
		})
	}
	all.Wait()
	if exists(socket) {
		t.Error("the socket is left")
	}
}

// TestDeleteBesideALivingDaemon is what follows each normal deletion on containerd 2.4.
func TestDeleteBesideALivingDaemon(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("p", map[string]string{sandboxAnnotation: "p", containerAnnotation: "sandbox"})
	m.bundle("a", map[string]string{sandboxAnnotation: "p", containerAnnotation: "container"})
	socket := m.mustStart("p", nil)
	pid := daemonOf(t, socket)
	for _, id := range []string{"a", "p"} {
		if _, complaint := m.mustDelete(id); complaint != "" {
			t.Errorf("%s: complained %q", id, complaint)
		}
	}
	if got := daemonOf(t, socket); got != pid {
		t.Errorf("the daemon was %d, is %d", pid, got)
	}
}

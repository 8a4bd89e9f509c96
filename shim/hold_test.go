package shim

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/internal/api"
)

// fullPipe returns a pipe that takes no more.
func fullPipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	size, err := unix.FcntlInt(write.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	return read, write
}

// TestStartThatIsKilledLeavesNothing stops a start just before it answers: the daemon is there, and
// another container of the pod is joining it. Then the start is killed, as a manager does when its
// client gives up. The daemon has to go, and the other container must get one that stays.
func TestStartThatIsKilledLeavesNothing(t *testing.T) {
	m := newManager(t, "2.4")
	for _, id := range []string{"c0", "c1"} {
		m.bundle(id, map[string]string{sandboxAnnotation: "c0"})
	}
	_, stdout := fullPipe(t)
	first := m.command(t.Context(), "c0", []string{"-namespace", "ns", "-id", "c0", "-address", m.address, "start"}, m.stdin("c0", nil))
	first.Stdout = stdout
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	socket := SocketPath(m.sockets, m.address, "ns", "c0")
	var held int
	eventually(t, "the daemon waits for its release", func() bool {
		pids := slices.DeleteFunc(m.daemons(), func(pid int) bool { return pid == first.Process.Pid })
		if len(pids) == 1 {
			held = pids[0]
		}
		return held != 0 && exists(socket)
	})
	second := make(chan string, 1)
	go func() {
		defer close(second)
		second <- m.mustStart("c1", nil)
	}()
	// The second start waits for the daemon to answer; without us it would for two seconds.
	eventually(t, "the second start is under way", func() bool { return len(m.daemons()) == 3 })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err == nil {
		t.Error("the first start succeeded")
	}
	if got := <-second; got != socket {
		t.Errorf("socket is %s, want %s", got, socket)
	}
	pid := daemonOf(t, socket)
	if pid == held {
		t.Error("the second start was given the daemon of the first")
	}
	eventually(t, "one daemon is left", func() bool { return slices.Equal(m.daemons(), []int{pid}) })
}

// TestUnprivilegedStart runs start for an ordinary user, and for the root of a user namespace, who may
// not enter the cgroup that the options name: that must not keep containers from starting
// (contract T16).
func TestUnprivilegedStart(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("an ordinary user cannot write the coverage, and says so on stderr")
	}
	const uid = 12345
	asUser := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	asRoot := &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		Credential:  &syscall.Credential{NoSetGroups: true},
	}
	for name, attr := range map[string]*syscall.SysProcAttr{"user": asUser, "root of a user namespace": asRoot} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, "2.4")
			m.attr = *attr
			bundle := m.bundle("c1", nil)
			copyOfSelf(t, m.binary)
			for _, path := range []string{filepath.Dir(m.state), filepath.Dir(m.binary), m.state, bundle, filepath.Join(bundle, "log")} {
				if err := os.Chown(path, uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			group := "/holdfast-unprivileged"
			makeCgroups(t, group)
			socket := m.mustStart("c1", pack(&api.Options{ShimCgroup: group}))
			pids := m.daemons()
			if len(pids) != 1 {
				t.Fatalf("daemons are %v", pids)
			}
			var st unix.Stat_t
			if err := unix.Stat(socket, &st); err != nil || st.Uid != uid {
				t.Errorf("the socket belongs to %d, %v", st.Uid, err)
			}
			status := readText(t, fmt.Sprintf("/proc/%d/status", pids[0]))
			if !strings.Contains(status, "\nUid:\t12345\t12345\t") {
				t.Errorf("status is %s", status)
			}
		})
	}
}

// TestDaemonIsOfTheSameVersionAsStart replaces the binary while start is under way, as an upgrade does.
func TestDaemonIsOfTheSameVersionAsStart(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	copyOfSelf(t, m.binary)
	other := filepath.Join(filepath.Dir(m.binary), "other")
	if err := os.WriteFile(other, []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	stdin, params, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	cmd := m.command(t.Context(), "c1", []string{"-namespace", "ns", "-id", "c1", "-address", m.address, "start"}, nil)
	cmd.Stdin = stdin
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil { // it has been executed once Start returns, and waits for stdin
		t.Fatal(err)
	}
	if err := os.Rename(other, m.binary); err != nil {
		t.Fatal(err)
	}
	if _, err := params.Write(m.stdin("c1", nil)); err != nil {
		t.Fatal(err)
	}
	params.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, output.Bytes())
	}
	if pid := daemonOf(t, SocketPath(m.sockets, m.address, "ns", "c1")); !slices.Equal(m.daemons(), []int{pid}) {
		t.Errorf("daemon is %d, all are %v", pid, m.daemons())
	}
}

// copyOfSelf puts a copy of this binary where everybody can run it.
func copyOfSelf(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}

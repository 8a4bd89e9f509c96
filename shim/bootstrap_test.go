package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/internal/api"
)

var managers = []string{"1.6", "1.7", "2.0", "2.2", "2.3", "2.4", "cri-o"}

// TestStartAsEachManager runs start as each version does and looks at everything that it says and
// leaves: the answer, the bundle, the socket, the daemon.
func TestStartAsEachManager(t *testing.T) {
	for _, version := range managers {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, version)
			bundle := m.bundle("c1", map[string]string{})
			o := pack(&api.Options{BinaryName: "runc"})
			if version == "cri-o" {
				o = nil
			}
			r := m.start("c1", o)
			address := m.address
			if version == "cri-o" {
				address = ""
			}
			socket := SocketPath(m.sockets, address, "ns", "c1")
			checkAnswer(t, m, r, socket)
			if got := readText(t, filepath.Join(bundle, "address")); got != "unix://"+socket {
				t.Errorf("address file has %q", got)
			}
			for path, want := range map[string]os.FileMode{
				filepath.Join(bundle, "address"): 0o644, filepath.Dir(socket): 0o700, socket: 0o600,
			} {
				if got := fileMode(t, path); got != want {
					t.Errorf("%s has mode %o, want %o", path, got, want)
				}
			}
			names := fileNames(t, bundle)
			names = slices.DeleteFunc(names, func(n string) bool { return n == crashFile }) // the daemon's, perhaps not yet
			if !cmp.Equal(names, []string{"address", "config.json", "log"}) {
				t.Errorf("the bundle has %v", names)
			}
			pid := daemonOf(t, socket)
			checkDaemon(t, m, pid, fmt.Sprintf("%s\x00-namespace\x00ns\x00-id\x00c1\x00-address\x00%s\x00", m.binary, address))

			// A second start of the same group joins it.
			if r := m.start("c1", o); true {
				checkAnswer(t, m, r, socket)
			}
			if got := daemonOf(t, socket); got != pid || len(m.daemons()) != 1 {
				t.Errorf("daemon is %d, then %d; all are %v", pid, got, m.daemons())
			}
		})
	}
}

func checkAnswer(t *testing.T, m *manager, r result, socket string) {
	t.Helper()
	if r.code != 0 || len(r.stderr) > 0 {
		t.Fatalf("exit status %d, stderr %q", r.code, r.stderr)
	}
	want := []byte("unix://" + socket)
	if m.isNew() {
		const extension = "containerd.types.MountCapabilities"
		want = slices.Concat([]byte{0x08, 3, 0x12, byte(len(want))}, want, []byte("\x1a\x05ttrpc"),
			[]byte{0x32, byte(len(extension) + 4), 0x0a, byte(len(extension) + 2), 0x0a, byte(len(extension))}, []byte(extension))
	}
	if !bytes.Equal(r.stdout, want) {
		t.Errorf("answer\n%q, want\n%q", r.stdout, want)
	}
}

func checkDaemon(t *testing.T, m *manager, pid int, cmdline string) {
	t.Helper()
	proc := func(name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }
	if got := readText(t, proc("cmdline")); got != cmdline {
		t.Errorf("command line is %q, want %q", got, cmdline)
	}
	if got := readText(t, proc("comm")); !strings.HasPrefix(filepath.Base(readLink(t, proc("exe"))), strings.TrimSpace(got)) {
		t.Errorf("comm is %q", got)
	}
	for fd, want := range map[string]string{"0": "/dev/null", "1": "/dev/null", "2": filepath.Join(m.state, "c1", "log")} {
		if got := readLink(t, proc("fd/"+fd)); got != want {
			t.Errorf("descriptor %s is %s, want %s", fd, got, want)
		}
	}
	if got := readLink(t, proc("cwd")); got != "/" {
		t.Errorf("working directory is %s", got)
	}
	if got, err := unix.Getpgid(pid); got != pid || err != nil {
		t.Errorf("process group is %d, %v", got, err)
	}
	ours, err := strconv.Atoi(strings.TrimSpace(readText(t, oomScoreFile)))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(readText(t, proc("oom_score_adj"))); got != strconv.Itoa(min(ours+1, 1000)) {
		t.Errorf("OOM score is %s, the manager's %d", got, ours)
	}
}

func readLink(t testing.TB, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// TestContainersOfAPodShareADaemon starts all of a pod at once, from nothing and then over the
// socket of a daemon that was killed.
func TestContainersOfAPodShareADaemon(t *testing.T) {
	for _, version := range []string{"1.7", "2.4"} {
		t.Run(version, func(t *testing.T) {
			m := newManager(t, version)
			const n = 8
			for i := range n {
				m.bundle(fmt.Sprint("c", i), map[string]string{sandboxAnnotation: "c0"})
			}
			for round := range 3 {
				sockets := make([]string, n)
				var all sync.WaitGroup
				for i := range n {
					all.Go(func() { sockets[i] = m.mustStart(fmt.Sprint("c", i), nil) })
				}
				all.Wait()
				if slices.Sort(sockets); sockets[0] != sockets[n-1] || sockets[0] != SocketPath(m.sockets, m.address, "ns", "c0") {
					t.Fatalf("round %d: sockets are %v", round, sockets)
				}
				for i := range n {
					if got := readText(t, filepath.Join(m.state, fmt.Sprint("c", i), "address")); got != "unix://"+sockets[0] {
						t.Errorf("round %d: address of c%d is %q", round, i, got)
					}
				}
				pid := daemonOf(t, sockets[0])
				eventually(t, "one daemon is left", func() bool { return slices.Equal(m.daemons(), []int{pid}) })
				m.endDaemons()
				if !exists(sockets[0]) {
					t.Fatal("the socket should have outlived its daemon")
				}
			}
		})
	}
}

// TestDaemonOfAStartThatFailedIsGone lets the answer fail, in the ways there are: then the manager
// believes that there is no shim, so there must be none.
func TestDaemonOfAStartThatFailedIsGone(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	read, gone, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	read.Close()
	for name, stdout := range map[string]*os.File{"disk full": full, "killed by SIGPIPE": gone} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, "2.4")
			m.bundle("c1", nil)
			cmd := m.command(t.Context(), "c1", []string{"-namespace", "ns", "-id", "c1", "start"}, m.stdin("c1", nil))
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = stdout, &stderr
			if err := cmd.Run(); err == nil {
				t.Error("start succeeded")
			}
			if stdout == full && (strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), "no space left")) {
				t.Errorf("stderr has %q", stderr.String())
			}
			eventually(t, "no daemon is left", func() bool { return len(m.daemons()) == 0 })
			if left := fileNames(t, m.sockets); len(left) > 0 {
				t.Errorf("sockets left: %v", left)
			}
		})
	}
}

// TestStartFailsWithOneLine has the causes that people meet, with the words that should help them.
func TestStartFailsWithOneLine(t *testing.T) {
	for _, c := range []struct {
		name, want string
		prepare    func(m *manager) *api.Any
	}{
		{"long socket directory", "limit is 106", func(m *manager) *api.Any {
			m.sockets = filepath.Join(m.sockets, strings.Repeat("d", 100))
			return nil
		}},
		{"broken spec", "read the container's spec", func(m *manager) *api.Any {
			writeText(m.t, filepath.Join(m.state, "c1", "config.json"), `{"annotations":`)
			return nil
		}},
		{"cgroup missing", "cannot join cgroup /holdfast/none", func(m *manager) *api.Any {
			return pack(&api.Options{ShimCgroup: "/holdfast/none"})
		}},
		{"address file in the way", "write the shim's address", func(m *manager) *api.Any {
			if err := os.MkdirAll(filepath.Join(m.state, "c1", "address", "x"), 0o700); err != nil {
				m.t.Fatal(err)
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, "2.4")
			m.bundle("c1", nil)
			r := m.start("c1", c.prepare(m))
			if r.code != 1 || len(r.stdout) > 0 {
				t.Errorf("exit status %d, stdout %q", r.code, r.stdout)
			}
			if text := string(r.stderr); strings.Count(text, "\n") != 1 || !strings.Contains(text, c.want) {
				t.Errorf("stderr is %q", text)
			}
			if names, err := filepath.Glob(filepath.Join(m.sockets, "*")); err != nil || len(names) > 0 {
				t.Errorf("sockets left: %v, %v", names, err)
			}
			if pids := m.daemons(); len(pids) > 0 {
				t.Errorf("daemons left: %v", pids)
			}
		})
	}
}

func TestDebugReachesTheDaemon(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	pid := daemonOf(t, m.mustStart("c1", nil, "-debug", "-unheard-of", "7"))
	if got := readText(t, fmt.Sprintf("/proc/%d/cmdline", pid)); !strings.Contains(got, "\x00-debug\x00") {
		t.Errorf("command line is %q", got)
	}
}

func TestStartLogsWhatItIgnores(t *testing.T) {
	m := newManager(t, "1.7")
	bundle := m.bundle("c1", nil)
	fifo, err := os.OpenFile(filepath.Join(bundle, "log"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	m.mustStart("c1", &api.Any{TypeUrl: "some.Type", Value: []byte("x")}, "-debug", "-unheard-of", "7")
	buf := make([]byte, 1<<16)
	n, err := fifo.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=debug", "unheard-of", "some.Type", "task=c1"} {
		if !strings.Contains(string(buf[:n]), want) {
			t.Errorf("the log is %q, want it to have %q", buf[:n], want)
		}
	}
}

// TestDaemonListensItself runs the daemon by hand.
func TestDaemonListensItself(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	socket := filepath.Join(m.sockets, "by-hand")
	cmd := m.command(t.Context(), "c1", []string{"-namespace", "ns", "-id", "c1", "-socket", socket}, nil)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon listens", func() bool { dead, err := isDead(socket); return err == nil && !dead })
	if got := daemonOf(t, socket); got != cmd.Process.Pid {
		t.Errorf("pid %d answers, want %d", got, cmd.Process.Pid)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || exists(socket) {
		t.Errorf("the daemon ended with %v; socket left: %v", err, exists(socket))
	}
}

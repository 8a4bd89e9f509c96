package shim

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"holdfast/internal/api"
	"holdfast/internal/wire"
)

// manager runs the shim's binary as one version of one manager would, with everything of its own:
// bundles, sockets, addresses. What it started is ended with the test.
type manager struct {
	t       *testing.T
	version string // "1.6" … "2.4", "cri-o"
	binary  string
	state   string   // parent of the bundles
	address string   // its gRPC socket
	sockets string   // socket directory, "" for the default
	env     []string // beside what every manager has
	umask   int      // of the manager, -1 for ours
	attr    syscall.SysProcAttr
	files   []*os.File
}

// newManager makes a manager whose shim is this test binary under the given name.
func newManager(t *testing.T, version string) *manager {
	t.Helper()
	inside(t)
	dir, err := os.MkdirTemp("/run", "m") // a short path: sockets go there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	m := &manager{
		t: t, version: version, binary: filepath.Join(dir, "bin", "containerd-shim-holdfast-v2"),
		state: filepath.Join(dir, "state"), address: filepath.Join(dir, "c.sock"), umask: -1,
		env: []string{passVariable + "=GORACE,GOCOVERDIR", "GORACE=atexit_sleep_ms=0"},
	}
	if m.isNew() {
		m.sockets = filepath.Join(dir, "s")
	}
	if cover := flag.Lookup("test.gocoverdir").Value.String(); cover != "" {
		m.env = append(m.env, "GOCOVERDIR="+cover) // where go test collects it
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(m.binary), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, m.binary); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.endDaemons)
	return m
}

// isNew tells whether the manager speaks the new protocol of start.
func (m *manager) isNew() bool { return m.version == "2.3" || m.version == "2.4" }

// bundle makes a bundle as the manager does, with a spec that has the given annotations, or, if
// they are nil, without a spec.
func (m *manager) bundle(id string, annotations map[string]string) string {
	m.t.Helper()
	dir := filepath.Join(m.state, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	makeFIFO(m.t, filepath.Join(dir, "log"))
	if annotations != nil {
		m.spec(id, "", annotations)
	}
	return dir
}

// spec writes a config.json.
func (m *manager) spec(id, cgroup string, annotations map[string]string) {
	m.t.Helper()
	text := fmt.Sprintf(`{"ociVersion":"1.0.2","root":{"path":"rootfs"},"annotations":%s,"linux":{"cgroupsPath":%q}}`, jsonText(m.t, annotations), cgroup)
	writeText(m.t, filepath.Join(m.state, id, "config.json"), text)
}

// result is what a run of the binary has left behind.
type result struct {
	stdout, stderr []byte
	code           int
}

// start runs the action start for a container whose bundle exists.
func (m *manager) start(id string, o *api.Any, flags ...string) result {
	m.t.Helper()
	args := []string{"-namespace", "ns", "-address", m.address, "-publish-binary", "/bin/containerd", "-id", id}
	if m.version == "cri-o" {
		args[3] = ""
	}
	return m.run(id, append(append(args, flags...), "start"), m.stdin(id, o))
}

// delete runs the action delete.
func (m *manager) delete(id string) result {
	m.t.Helper()
	return m.run(id, []string{
		"-namespace", "ns", "-address", m.address, "-publish-binary", "/bin/containerd", "-id", id,
		"-bundle", filepath.Join(m.state, id), "delete",
	}, nil)
}

func (m *manager) stdin(id string, o *api.Any) []byte {
	if !m.isNew() {
		if o == nil {
			return nil
		}
		return wire.Marshal(o)
	}
	msg := &api.BootstrapParams{
		InstanceID: id, Namespace: "ns", ContainerdVersion: m.version + ".0", ContainerdGrpcAddress: m.address,
		ContainerdTtrpcAddress: m.address + ".ttrpc", ContainerdBinary: "/bin/containerd",
	}
	if o != nil {
		msg.Extensions = []*api.Extension{{Value: o}}
	}
	if m.sockets != "" {
		msg.SocketDir = new(m.sockets)
	}
	return wire.Marshal(msg)
}

// command returns a run of the binary in the bundle of id.
func (m *manager) command(ctx context.Context, id string, args []string, stdin []byte) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.binary, args...)
	cmd.Dir = filepath.Join(m.state, id)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "SECRET=value", "NOTIFY_SOCKET=/n", "GOMAXPROCS=2"}, m.env...)
	switch m.version {
	case "cri-o":
		cmd.Env = append(cmd.Env, "TTRPC_ADDRESS=", "GRPC_ADDRESS=", "NAMESPACE=default", "MAX_SHIM_VERSION=2")
	case "1.6":
		cmd.Env = append(cmd.Env, "TTRPC_ADDRESS="+m.address+".ttrpc")
	default:
		cmd.Env = append(cmd.Env, "TTRPC_ADDRESS="+m.address+".ttrpc", "GRPC_ADDRESS="+m.address, "NAMESPACE=ns", "MAX_SHIM_VERSION=2")
	}
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	cmd.ExtraFiles = m.files
	attr := m.attr
	attr.Setpgid = true
	cmd.SysProcAttr = &attr
	cmd.WaitDelay = time.Second
	return cmd
}

func (m *manager) run(id string, args []string, stdin []byte) result {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	cmd := m.command(ctx, id, args, stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if m.umask >= 0 {
		defer unix.Umask(unix.Umask(m.umask))
	}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("run %v: %v; stderr: %s", args, err, stderr.Bytes())
	}
	return result{stdout.Bytes(), stderr.Bytes(), cmd.ProcessState.ExitCode()}
}

// address reads an answer of start as this version of the manager does, from stdout and stderr
// together.
func (m *manager) parse(r result) (path string, version int32) {
	m.t.Helper()
	output := slices.Concat(r.stdout, r.stderr)
	if r.code != 0 {
		m.t.Fatalf("start failed with %d: %s", r.code, output)
	}
	address, version := string(output), int32(2)
	if m.isNew() {
		var msg api.BootstrapResult
		if err := wire.Unmarshal(output, &msg); err != nil {
			m.t.Fatalf("answer %q: %v", output, err)
		}
		if msg.GetProtocol() != "ttrpc" {
			m.t.Fatalf("protocol is %q", msg.GetProtocol())
		}
		address, version = msg.GetAddress(), msg.GetVersion()
	}
	path, found := strings.CutPrefix(address, "unix://")
	if !found || strings.TrimSpace(path) != path {
		m.t.Fatalf("address is %q", address)
	}
	return path, version
}

// mustStart starts a container's shim and returns its socket.
func (m *manager) mustStart(id string, o *api.Any, flags ...string) string {
	m.t.Helper()
	path, _ := m.parse(m.start(id, o, flags...))
	return path
}

// daemonOf returns the pid of the daemon that answers on a socket.
func daemonOf(t testing.TB, socket string) int {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reply, err := taskv3.NewTTRPCTaskClient(client).Connect(ctx, &taskv3.ConnectRequest{})
	if err != nil {
		t.Fatalf("connect to the daemon at %s: %v", socket, err)
	}
	return int(reply.GetShimPid())
}

// daemons returns the pids of all daemons of this manager.
func (m *manager) daemons() []int {
	var pids []int
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, path := range entries {
		data, err := os.ReadFile(path)
		var pid int
		if err != nil || !strings.HasPrefix(string(data), m.binary+"\x00") {
			continue
		}
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err != nil {
			m.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// endDaemons kills the daemons and waits until they are gone.
func (m *manager) endDaemons() {
	eventually(m.t, "all daemons are dead", func() bool {
		pids := m.daemons()
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				m.t.Error(err)
			}
		}
		return len(pids) == 0
	})
}

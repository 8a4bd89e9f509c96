package shim

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
)

// The daemons of others, as far as start meets them.
type (
	onlyV3 struct{ taskv3.TTRPCTaskService }
	onlyV2 struct{ taskv2.TTRPCTaskService }
)

func (onlyV3) Connect(context.Context, *taskv3.ConnectRequest) (*taskv3.ConnectResponse, error) {
	return nil, errdefs.ErrNotFound // an answer as good as any
}

func (onlyV2) Connect(context.Context, *taskv2.ConnectRequest) (*taskv2.ConnectResponse, error) {
	return &taskv2.ConnectResponse{}, nil
}

// serveOthers serves what register registers on the socket of the group c1, until the test ends.
func serveOthers(t *testing.T, socket string, register func(*ttrpc.Server)) {
	t.Helper()
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	register(server)
	p := DaemonParams{}
	if err := p.serveOn(l.File); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(context.Background(), p.Listener); !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

// TestJoinAnswersTheVersionThatTheDaemonSpeaks has pods that were begun by another shim, before ours
// was installed in its place.
func TestJoinAnswersTheVersionThatTheDaemonSpeaks(t *testing.T) {
	for name, c := range map[string]struct {
		register func(*ttrpc.Server)
		want     int32
	}{
		"containerd 1.7": {func(s *ttrpc.Server) { taskv2.RegisterTTRPCTaskService(s, onlyV2{}) }, 2},
		"containerd 2.3": {func(s *ttrpc.Server) { taskv3.RegisterTTRPCTaskService(s, onlyV3{}) }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, "2.4")
			bundle := m.bundle("c1", nil)
			socket := SocketPath(m.sockets, m.address, "ns", "c1")
			serveOthers(t, socket, c.register)
			r := m.start("c1", nil)
			if path, version := m.parse(r); path != socket || version != c.want {
				t.Errorf("answer is %s, version %d, want %d", path, version, c.want)
			}
			if got := readText(t, filepath.Join(bundle, "address")); got != "unix://"+socket {
				t.Errorf("address file has %q", got)
			}
			if pids := m.daemons(); len(pids) > 0 {
				t.Errorf("daemons %v were started", pids)
			}
		})
	}
}

func TestSomethingElseOnTheSocketIsNamed(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	serveOthers(t, SocketPath(m.sockets, m.address, "ns", "c1"), func(*ttrpc.Server) {})
	if r := m.start("c1", nil); r.code != 1 || len(r.stdout) > 0 || len(r.stderr) == 0 {
		t.Errorf("exit status %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

// TestStuckDaemonIsNotReplaced has a daemon that is stopped, say: it holds containers, so there must
// be no second one.
func TestStuckDaemonIsNotReplaced(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	socket := SocketPath(m.sockets, m.address, "ns", "c1")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	if path, version := m.parse(m.start("c1", nil)); path != socket || version != 3 {
		t.Errorf("answer is %s, version %d", path, version)
	}
	if took := time.Since(began); took > probeLimit+2*time.Second {
		t.Errorf("start took %v", took)
	}
}

// TestStartReplacesADaemonThatEndsMeanwhile has one that accepts and hangs up, as one that is
// on its way out does, and then lets go of its socket.
func TestStartReplacesADaemonThatEndsMeanwhile(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	socket := SocketPath(m.sockets, m.address, "ns", "c1")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	old, err := net.FileListener(l.File)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	ended := make(chan error, 1)
	go func() {
		for range 4 { // tests of start whether we are alive, and talks after them
			conn, err := old.Accept()
			if err != nil {
				ended <- err
				return
			}
			conn.Close()
		}
		ended <- errors.Join(l.at.remove(), old.Close())
	}()
	if path := m.mustStart("c1", nil); path != socket {
		t.Errorf("socket is %s", path)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if pid := daemonOf(t, socket); pid == os.Getpid() || pid == 0 {
		t.Errorf("pid is %d", pid)
	}
}

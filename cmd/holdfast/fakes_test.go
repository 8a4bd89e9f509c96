package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/node"
)

// fakeNode is a made-up process table with shims that answer, each on a socket of its own.
type fakeNode struct {
	task.TTRPCTaskService // nil: nothing else is called

	t   *testing.T
	dir string
	cfg node.Config

	mu       sync.Mutex
	now, max int           // calls of State that are being answered
	enough   chan struct{} // closed when there are as many at a time as a test wants
	wanted   int
}

// newFakeNode makes one whose shims answer State only when wanted calls have been made at a time, to
// whichever of them.
func newFakeNode(t *testing.T, shims, wanted int) *fakeNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "hfn-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	n := &fakeNode{t: t, dir: dir, enough: make(chan struct{}), wanted: wanted}
	n.cfg = node.Config{
		ProcRoot: filepath.Join(dir, "proc"), SocketDirs: []string{filepath.Join(dir, "s")},
		StateDirs: []string{filepath.Join(dir, "state")},
	}
	n.write("s/none", "")
	n.write("proc/stat", "btime 1700000000\n")
	for i := range shims {
		n.shim(i+1, fmt.Sprintf("c%03d", i+1), n)
	}
	return n
}

func (n *fakeNode) write(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *fakeNode) socket(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(n.dir, "s", hex.EncodeToString(sum[:]))
}

// shim adds one with a container, which service answers for; nobody does if that is nil.
func (n *fakeNode) shim(pid int, id string, service task.TTRPCTaskService) {
	n.t.Helper()
	proc := fmt.Sprintf("proc/%d/", pid)
	n.write(proc+"cmdline", "/x/containerd-shim-fake-v2\x00-namespace\x00ns\x00-id\x00"+id+"\x00")
	n.write(proc+"stat", fmt.Sprintf("%d (x) S 1 1 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 7 0 12300 5 6\n", pid))
	n.write(proc+"smaps_rollup", "Rss: 5000 kB\nPss:  2000 kB\nPrivate_Dirty:  900 kB\n")
	n.write("state/ns/"+id+"/address", "unix://"+n.socket(id))
	if err := os.Symlink(filepath.Join(n.dir, "state/ns", id), filepath.Join(n.dir, proc+"cwd")); err != nil {
		n.t.Fatal(err)
	}
	l, err := net.Listen("unix", n.socket(id))
	if err != nil {
		n.t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { server.Close(); l.Close() })
	if service == nil {
		return
	}
	task.RegisterTTRPCTaskService(server, service)
	go server.Serve(context.Background(), l) //nolint:errcheck // ends with the test
}

// The calls that holdfast makes.

func (n *fakeNode) Connect(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
	return &task.ConnectResponse{ShimPid: 1}, nil
}

func (n *fakeNode) State(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	n.mu.Lock()
	n.now++
	if n.max = max(n.max, n.now); n.max == n.wanted && n.wanted > 0 {
		n.wanted = 0
		close(n.enough)
	}
	n.mu.Unlock()
	select {
	case <-n.enough:
	case <-time.After(10 * time.Second): // the test tells by max
	}
	n.mu.Lock()
	n.now--
	n.mu.Unlock()
	return &task.StateResponse{ID: r.ID, Status: tasktypes.Status_RUNNING, Pid: 77}, nil
}

func (n *fakeNode) Stats(context.Context, *task.StatsRequest) (*task.StatsResponse, error) {
	m := &stats1.Metrics{
		CPU:    &stats1.CPUStat{Usage: &stats1.CPUUsage{Total: 1500000000}},
		Memory: &stats1.MemoryStat{Usage: &stats1.MemoryEntry{Usage: 3 << 20, Limit: 12 << 20}, TotalInactiveFile: 1 << 20},
		Pids:   &stats1.PidsStat{Current: 4},
	}
	stats, err := anypb.New(m)
	return &task.StatsResponse{Stats: stats}, err
}

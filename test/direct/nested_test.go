package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
)

// nest makes a group below a container's in all hierarchies and moves a process into it.
func (l *lab) nest(id, name string, pid int) {
	l.t.Helper()
	for _, dir := range l.groups(id) {
		nested := filepath.Join(dir, name)
		if err := os.Mkdir(nested, 0o755); err != nil {
			l.t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // version 1 makes them empty
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				_ = os.WriteFile(filepath.Join(nested, file), b, 0)
			}
		}
		if err := os.WriteFile(filepath.Join(nested, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
			l.t.Fatal(err)
		}
	}
}

// What a container does in groups below its own belongs to it: a service manager in it, say.
func TestPauseUpdateAndKillReachNestedGroups(t *testing.T) {
	cfg := sh("exec sleep 1000")
	cfg.MemoryLimit = 64 << 20
	l := newLab(t, labConfig{bundle: cfg})
	first := l.run("c1", nil)
	io := l.io("e1", client.IOConfig{})
	l.mustExec("c1", "e1", sh("while :; do echo tick; sleep 0.02; done"), io)
	ticker := l.mustStart("c1", "e1")
	l.nest("c1", "inner", ticker)
	if got := l.pids("c1"); got[ticker] != "e1" {
		t.Errorf("pids %v, want %d", got, ticker)
	} else if _, ok := got[first]; !ok {
		t.Errorf("pids %v, want %d", got, first)
	}
	if err := io.Out.WaitFor(within(t), "tick"); err != nil {
		t.Fatal(err)
	}
	l.pause("c1")
	before := len(io.Out.String())
	l.update("c1", `{"memory":{"limit":50331648}}`)
	if got := strings.TrimSpace(l.read(l.limitFile("c1"))); got != "50331648" {
		t.Errorf("limit %s", got)
	}
	if now := len(io.Out.String()); now > before+2*len("tick\n") {
		t.Errorf("%d bytes came out of a nested group that is paused", now-before)
	}
	l.killAll("c1", 9)
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if got := l.wait("c1", "e1"); got != 137 {
		t.Errorf("exit status of the nested process %d", got)
	}
	l.mustDelete("c1", "e1")
	l.mustDelete("c1", "")
}

func (l *lab) update(id, resources string) {
	l.t.Helper()
	r := &task.UpdateTaskRequest{ID: id, Resources: &anypb.Any{Value: []byte(resources)}}
	if _, err := l.Update(within(l.t), r); err != nil {
		l.t.Fatal(err)
	}
}

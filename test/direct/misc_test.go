package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
)

// pids returns the processes of a container and the exec ids of those that have one.
func (l *lab) pids(id string) map[int]string {
	l.t.Helper()
	a, err := l.Pids(within(l.t), &task.PidsRequest{ID: id})
	if err != nil {
		l.t.Fatalf("pids of %s: %v", id, err)
	}
	list := map[int]string{}
	for _, p := range a.GetProcesses() {
		exec := ""
		if info := p.GetInfo(); info != nil {
			var details options.ProcessDetails
			if info.GetTypeUrl() != "containerd.runc.v1.ProcessDetails" || proto.Unmarshal(info.GetValue(), &details) != nil {
				l.t.Errorf("pid %d has info %v", p.GetPid(), info)
			}
			exec = details.GetExecID()
		}
		list[int(p.GetPid())] = exec
	}
	return list
}

// Managers take an empty list for a shim that leaked, and throw the exit status away: an init
// process that has exited is listed until it is deleted (managers.md, surprise 1).
func TestPidsNameExecsAndAnExitedInit(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("sleep 1000 & exec sleep 1000")})
	c1 := l.run("c1", nil)
	e1 := l.runExec("c1", "e1", sh("sleep 1000 & exec sleep 1000"))
	l.eventually("all four processes are listed", func() bool { return len(l.pids("c1")) == 4 })
	for pid, exec := range l.pids("c1") {
		if want := map[int]string{e1: "e1"}[pid]; exec != want {
			t.Errorf("pid %d is named %q, want %q", pid, exec, want)
		}
	}
	l.kill("c1", "", 9)
	l.wait("c1", "")
	if got := l.pids("c1"); len(got) != 1 || got[c1] != "" {
		t.Errorf("pids after the exit: %v, want %d alone", got, c1)
	}
	if got := l.wait("c1", "e1"); got != 137 {
		t.Errorf("the exec ended with %d", got)
	}
	l.mustDelete("c1", "e1")
	l.mustDelete("c1", "")
}

// memory returns from Stats how many OOM kills there were, and the limit.
func (l *lab) memory(id string) (kills, bytes uint64) {
	l.t.Helper()
	a, err := l.Stats(within(l.t), &task.StatsRequest{ID: id})
	if err != nil {
		l.t.Fatalf("stats of %s: %v", id, err)
	}
	switch url := a.GetStats().GetTypeUrl(); url {
	case "io.containerd.cgroups.v1.Metrics":
		var m cgroup1.Metrics
		l.decode(a.GetStats(), &m)
		return m.GetMemoryOomControl().GetOomKill(), m.GetMemory().GetUsage().GetLimit()
	case "io.containerd.cgroups.v2.Metrics":
		var m cgroup2.Metrics
		l.decode(a.GetStats(), &m)
		return m.GetMemoryEvents().GetOomKill(), m.GetMemory().GetUsageLimit()
	default:
		l.t.Fatalf("stats are a %q", url)
	}
	return 0, 0
}

func (l *lab) decode(a *anypb.Any, m proto.Message) {
	l.t.Helper()
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		l.t.Fatalf("decode %s: %v", a.GetTypeUrl(), err)
	}
}

func TestUpdateChangesTheLimit(t *testing.T) {
	cfg := sleeper()
	cfg.MemoryLimit = 64 << 20
	l := newLab(t, labConfig{bundle: cfg})
	l.mustCreate("c1", nil)
	if _, limit := l.memory("c1"); limit != 64<<20 {
		t.Errorf("limit of a created container: %d", limit)
	}
	l.mustStart("c1", "")
	for _, limit := range []string{"33554432", "50331648"} {
		r := &task.UpdateTaskRequest{ID: "c1", Resources: &anypb.Any{Value: []byte(`{"memory":{"limit":` + limit + `}}`)}}
		if _, err := l.Update(within(t), r); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(l.read(l.limitFile("c1"))); got != limit {
			t.Errorf("the kernel has limit %s, want %s", got, limit)
		}
	}
	l.pause("c1")
	if _, limit := l.memory("c1"); limit != 48<<20 {
		t.Errorf("limit of a paused container: %d", limit)
	}
	l.kill("c1", "", 9)
	l.wait("c1", "")
	l.memory("c1") // of a stopped one
	l.mustDelete("c1", "")
}

func (l *lab) limitFile(id string) string {
	for _, path := range []string{
		"/sys/fs/cgroup/memory" + l.cgroup(id) + "/memory.limit_in_bytes",
		"/sys/fs/cgroup" + l.cgroup(id) + "/memory.max",
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	l.t.Fatalf("no memory controller for %s", id)
	return ""
}

func TestOOMIsToldBeforeTheExit(t *testing.T) {
	const rounds = 20
	cfg := client.BundleConfig{Args: []string{"/usr/bin/tail", "/dev/zero"}, MemoryLimit: 48 << 20} // runc needs some itself
	l := newLab(t, labConfig{bundle: cfg})
	for round := range rounds {
		l.run("c1", nil)
		if got := l.wait("c1", ""); got != 137 {
			t.Errorf("round %d: exit status %d, want 137", round, got)
		}
		if _, err := os.Stat(filepath.Join(l.dir, "c1", "oom")); err != nil {
			t.Errorf("round %d: the file by which CRI-O knows: %v", round, err)
		} else if err := os.Remove(filepath.Join(l.dir, "c1", "oom")); err != nil {
			t.Fatal(err)
		}
		if kills, _ := l.memory("c1"); kills == 0 {
			t.Errorf("round %d: stats of the stopped container know of no OOM kill", round)
		}
		l.mustDelete("c1", "")
	}
	// Nothing of the kind is told of one that ends otherwise.
	l.ids = nil
	l.bundle("c1", sh("exit 137"))
	l.run("c1", nil)
	l.wait("c1", "")
	l.mustDelete("c1", "")
	if _, err := os.Stat(filepath.Join(l.dir, "c1", "oom")); err == nil {
		t.Error("a file oom without an OOM")
	}
	deletes := 0
	l.eventually("all deletions are told", func() bool {
		deletes = count(l.Events.All(), client.Deletes("c1", ""))
		return deletes == rounds+1
	})
	var lives []string // the events of each life
	life := ""
	for _, e := range l.Events.All() {
		life += strings.TrimPrefix(e.Topic, "/tasks/") + " "
		if e.Topic == "/tasks/delete" {
			lives = append(lives, life)
			life = ""
		}
	}
	for i, life := range lives[:rounds] {
		// It may come before the start: the program runs before the runtime says that it does. And it
		// may come twice.
		oom, exit := strings.LastIndex(life, "oom "), strings.Index(life, "exit ")
		if oom < 0 || exit < oom {
			t.Errorf("round %d: %s", i, life)
		}
	}
	if strings.Contains(lives[rounds], "oom") {
		t.Errorf("without an OOM: %s", lives[rounds])
	}
}

func TestKillsAreAnsweredInClientsWords(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("trap 'exit 9' TERM; trap 'echo again' USR1; while :; do sleep 0.05; done")})
	io := l.io("c1", client.IOConfig{})
	l.run("c1", io)
	l.eventually("the trap is set", func() bool {
		l.kill("c1", "", uint32(syscall.SIGUSR1))
		return strings.Contains(io.Out.String(), "again") || l.status("c1", "") != tasktypes.Status_RUNNING
	})
	if got := l.status("c1", ""); got == tasktypes.Status_RUNNING {
		l.kill("c1", "", uint32(syscall.SIGTERM))
	}
	got := l.wait("c1", "")
	if got != 9 {
		t.Errorf("exit status %d, want 9", got)
	}
	for range 2 {
		for _, signal := range []uint32{0, 9, 15} {
			_, err := l.Kill(within(t), &task.KillRequest{ID: "c1", Signal: signal})
			is(t, "kill of the dead", err, errdefs.ErrNotFound)
			if err == nil || err.Error() != "process already finished: not found" {
				t.Errorf("kill of the dead: %v", err)
			}
		}
	}
	l.output(io.Out)
	l.mustDelete("c1", "")
	_, err := l.Kill(within(t), &task.KillRequest{ID: "c1", Signal: 9})
	is(t, "kill of the deleted", err, errdefs.ErrNotFound)
}

// becomes waits until a process runs a program: at first it is the runtime's, which takes no notice of most
// signals.
func (l *lab) becomes(pid int, program string) {
	l.t.Helper()
	l.eventually(fmt.Sprintf("%d runs %s", pid, program), func() bool {
		return l.read(fmt.Sprintf("/proc/%d/comm", pid)) == program+"\n"
	})
}

// All reaches every process of the container; realtime signals pass as numbers.
func TestKillAll(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("trap : USR1; sleep 1000 & sleep 1000 & while :; do wait; done")})
	c1 := l.run("c1", nil)
	l.eventually("the sleepers are there", func() bool { return len(l.pids("c1")) == 3 })
	e1 := l.runExec("c1", "e1", sleeper())
	l.becomes(e1, "sleep")
	if _, err := l.Kill(within(t), &task.KillRequest{ID: "c1", Signal: uint32(syscall.SIGUSR1), All: true}); err != nil {
		t.Fatal(err)
	}
	if got := l.wait("c1", "e1"); got != 128+int(syscall.SIGUSR1) {
		t.Errorf("the exec %d ended with %d", e1, got)
	}
	l.eventually("init alone is left", func() bool {
		left := l.pids("c1")
		_, lives := left[c1]
		return lives && len(left) == 1
	})
	l.mustDelete("c1", "e1")
	l.becomes(l.runExec("c1", "e2", sleeper()), "sleep")
	l.kill("c1", "e2", 40)
	if got := l.wait("c1", "e2"); got != 128+40 {
		t.Errorf("a realtime signal ended the exec with %d", got)
	}
	l.mustDelete("c1", "e2")
	l.finish("c1")
}

// A time that has not come is Go's zero time on the wire: a missing one reads as 1970 (T56).
func TestTimesThatHaveNotCome(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.mustCreate("c1", nil)
	l.mustStart("c1", "")
	l.mustExec("c1", "e1", sleeper(), nil)
	for _, exec := range []string{"", "e1"} {
		a, err := l.State(within(t), &task.StateRequest{ID: "c1", ExecID: exec})
		if err != nil {
			t.Fatal(err)
		}
		if at := a.GetExitedAt(); at == nil || at.GetSeconds() != -62135596800 || at.GetNanos() != 0 {
			t.Errorf("%q exited at %v", exec, at)
		}
		if want := map[string]string{"": "c1", "e1": "e1"}[exec]; a.GetID() != want || a.GetExecID() != "" {
			t.Errorf("state of %q has id %q and exec id %q", exec, a.GetID(), a.GetExecID())
		}
	}
	if a := l.mustDelete("c1", "e1"); a.GetExitedAt() == nil || a.GetExitedAt().GetSeconds() != -62135596800 || a.GetExitStatus() != 0 {
		t.Errorf("delete of an exec that never ran answers %v", a)
	}
	started := time.Now()
	l.kill("c1", "", 9)
	l.wait("c1", "")
	a, err := l.State(within(t), &task.StateRequest{ID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	if at := client.Time(a.GetExitedAt()); at.Before(started.Add(-time.Second)) || at.After(time.Now()) || a.GetExitStatus() != 137 || a.GetPid() == 0 {
		t.Errorf("after the exit: %v", a)
	}
	if d := l.mustDelete("c1", ""); !slices.Equal([]any{d.GetPid(), d.GetExitStatus()}, []any{a.GetPid(), a.GetExitStatus()}) || !d.GetExitedAt().AsTime().Equal(a.GetExitedAt().AsTime()) {
		t.Errorf("delete answers %v, state said %v", d, a)
	}
}

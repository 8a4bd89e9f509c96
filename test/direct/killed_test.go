package direct

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"

	"holdfast/internal/client"
	"holdfast/internal/recorder"
	"holdfast/process"
	"holdfast/test/order"
)

// The delete action takes less than deleteTime, mostly; always less than deleteLimit, since a manager
// kills it after 5 s. A machine that runs other tests beside it may not let it run for a while, once.
const (
	deleteTime  = time.Second
	deleteLimit = 4 * time.Second
)

// mostly checks that the delete action was quick after most of a test's kills.
func mostly(t *testing.T, took []time.Duration) {
	t.Helper()
	slices.Sort(took)
	if len(took) == 0 || took[len(took)/2] > deleteTime {
		t.Errorf("the delete action mostly takes more than %v: %v", deleteTime, took)
	}
}

// stoppable is the shim, built so that it can be stopped at its steps.
var stoppable = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(filepath.Dir(shimBinary), "stoppable", filepath.Base(shimBinary))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	build := exec.Command("go", "build", "-tags", "no_grpc failpoints", "-o", binary,
		"holdfast/cmd/containerd-shim-holdfast-v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return binary, nil
})

// newStoppable is newLab with a shim that stops at the step called name.
func newStoppable(t *testing.T, name string, cfg labConfig) *lab {
	t.Helper()
	binary, err := stoppable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOLDFAST_FAILPOINTS", name)
	t.Setenv("HOLDFAST_FAILPOINTS_DIR", t.TempDir())
	cfg.binary = binary
	return newLab(t, cfg)
}

// stopped tells whether the shim stands at the step, waiting until then.
func (l *lab) stopped(name string) {
	l.t.Helper()
	l.eventually("the shim is at "+name, func() bool {
		_, err := os.Stat(filepath.Join(os.Getenv("HOLDFAST_FAILPOINTS_DIR"), name))
		return err == nil
	})
}

// goOn lets the shim leave the step.
func (l *lab) goOn(name string) {
	l.t.Helper()
	if err := os.Remove(filepath.Join(os.Getenv("HOLDFAST_FAILPOINTS_DIR"), name)); err != nil {
		l.t.Fatal(err)
	}
}

// live does all that is done to a task, which signal ends, as long as the shim answers.
func (l *lab) live(ctx context.Context, create *task.CreateTaskRequest, signal uint32) {
	spec, err := client.ExecSpec(sh("exit 3"))
	if err != nil {
		l.t.Error(err)
		return
	}
	for _, call := range []func() error{
		func() error { _, err := l.Create(ctx, create); return err },
		func() error { _, err := l.Start(ctx, &task.StartRequest{ID: "c1"}); return err },
		func() error {
			_, err := l.Exec(ctx, &task.ExecProcessRequest{ID: "c1", ExecID: "e1", Spec: spec})
			return err
		},
		func() error { _, err := l.Start(ctx, &task.StartRequest{ID: "c1", ExecID: "e1"}); return err },
		func() error { _, err := l.Wait(ctx, &task.WaitRequest{ID: "c1", ExecID: "e1"}); return err },
		func() error { _, err := l.Delete(ctx, &task.DeleteRequest{ID: "c1", ExecID: "e1"}); return err },
		func() error { _, err := l.Kill(ctx, &task.KillRequest{ID: "c1", Signal: signal}); return err },
		func() error { _, err := l.Wait(ctx, &task.WaitRequest{ID: "c1"}); return err },
		func() error { _, err := l.Delete(ctx, &task.DeleteRequest{ID: "c1"}); return err },
		func() error { _, err := l.Shutdown(ctx, &task.ShutdownRequest{ID: "c1"}); return err },
	} {
		if call() != nil {
			return // the shim is dead by now
		}
	}
}

// TestKilledAtEveryStep kills the shim at each of its steps. What the delete action then leaves is
// looked for by the lab: processes, mounts, sockets; and here.
func TestKilledAtEveryStep(t *testing.T) {
	var took []time.Duration
	for _, step := range recorder.Labels() {
		t.Run(step.Name()+" "+step.What, func(t *testing.T) {
			l := newStoppable(t, step.Name(), labConfig{
				bundle: sh("trap 'exit 5' TERM; while :; do sleep 0.05; done"),
				relax:  []order.Option{order.EndsInMiddle},
			})
			create := l.createRequest("c1", nil)
			create.Rootfs = []*types.Mount{{Type: "bind", Source: l.rootfsElsewhere("c1"), Options: []string{"rbind", "rw"}}}
			pid := l.Pid()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				l.live(within(t), create, 15)
			}()
			l.stopped(step.Name())
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-ended
			<-l.Done()
			l.killed = true
			took = append(took, l.deletedAfter(step))
			order.Verify(t, l.Events.All(), order.EndsInMiddle)
			l.Close()
		})
	}
	mostly(t, took)
}

// deletedAfter runs the delete action for c1 of a shim that was killed at a step, and returns how long
// it took.
func (l *lab) deletedAfter(step recorder.Label) (took time.Duration) {
	l.t.Helper()
	began := time.Now()
	answer := l.cleanUp("c1")
	if took = time.Since(began); took > deleteLimit {
		l.t.Errorf("the delete action took %v", took)
	}
	known := step.Op == "exit" && step.N > 1 || step.Op == "delete" || step.Op == "shutdown"
	want := uint32(137)
	if known {
		want = 5
	}
	if got := answer.GetExitStatus(); got != want {
		l.t.Errorf("the delete action says status %d, want %d", got, want)
	}
	if known {
		var record process.ExitRecord
		if err := json.Unmarshal([]byte(l.read(filepath.Join(l.dir, "c1", process.ExitFile))), &record); err != nil {
			l.t.Fatal(err)
		}
		if at := answer.GetExitedAt().AsTime(); !at.Equal(record.Timestamp) || int32(answer.GetPid()) != record.Pid {
			l.t.Errorf("the delete action says pid %d, %v; the record is %+v", answer.GetPid(), at, record)
		}
	}
	for what, path := range map[string]string{
		"state of the runtime": filepath.Join("/run/containerd/runc", l.name, "c1"),
		"socket":               strings.TrimPrefix(l.Result.Address, "unix://"),
	} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			l.t.Errorf("%s is left: %v", what, err)
		}
	}
	return took
}

// TestKilledDuringTheRuntimesCommands kills the shim while the runtime is at work.
func TestKilledDuringTheRuntimesCommands(t *testing.T) {
	var all []time.Duration
	for _, row := range []struct{ verb, point string }{
		{"create", "begin"}, {"create", "born"}, {"create", "end"}, {"start", "begin"}, {"start", "end"},
		{"exec", "begin"}, {"exec", "born"}, {"exec", "end"}, {"delete", "begin"}, {"delete", "end"},
	} {
		t.Run(row.verb+" "+row.point, func(t *testing.T) {
			l := newLab(t, labConfig{options: fake(), bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
			l.opts.Root = filepath.Join(l.dir, "r")
			brief := step{"child": step{"life": "10ms", "exit": 3}}
			l.script("c1", map[string]step{"exec": brief, row.verb: {"pause": row.point}})
			pid, ended := l.Pid(), make(chan struct{})
			go func() {
				defer close(ended)
				l.live(within(t), l.createRequest("c1", nil), 9)
			}()
			l.reached("c1", row.verb, row.point)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-ended
			<-l.Done()
			l.killed = true
			l.script("c1", nil)
			began := time.Now()
			l.cleanUp("c1")
			took := time.Since(began)
			if took > deleteLimit {
				t.Errorf("the delete action took %v", took)
			}
			all = append(all, took)
			if left, err := os.ReadDir(filepath.Join(l.dir, "r", l.name)); err == nil && len(left) > 0 {
				t.Errorf("the runtime still has %v", left)
			}
			order.Verify(t, l.Events.All(), order.EndsInMiddle)
			l.Close()
		})
	}
	mostly(t, all)
}

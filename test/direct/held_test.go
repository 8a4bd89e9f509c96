package direct

import (
	"fmt"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"holdfast/internal/client"
)

// soon is within what a call takes on a busy machine that waits for nobody.
const soon = 3 * time.Second

// holding is a process that leaves another one behind, which holds its streams.
const holding = "sleep 1000 & echo ok"

// An exec leaves a process behind that holds its streams. Its exit is told at once, and all but
// its deletion is answered at once; that ends 10 s after the exit, and with it the stream.
func TestStreamThatIsHeldDelaysTheDeletionOfItsExecAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	l.more("c2", sleeper())
	io := l.io("e1", client.IOConfig{})
	began := time.Now()
	l.mustExec("c1", "e1", sh(holding), io)
	l.mustStart("c1", "e1")
	l.event(client.Exits("c1", "e1"))
	exited := time.Now()
	if took := exited.Sub(began); took > soon {
		t.Errorf("the exit was told after %v", took)
	}
	if status := l.wait("c1", "e1"); status != 0 {
		t.Errorf("exit status %d", status)
	}
	deleted := make(chan error, 1)
	go func() {
		_, err := l.Delete(within(t), &task.DeleteRequest{ID: "c1", ExecID: "e1"})
		deleted <- err
	}()
	for round := 0; ; round++ {
		select {
		case err := <-deleted:
			if took := time.Since(exited); err != nil || took < 9*time.Second || took > 10*time.Second+soon {
				t.Errorf("deletion: %v, %v after the exit", err, took)
			}
			if out := l.output(io.Out); out != "ok\n" {
				t.Errorf("output %q", out)
			}
			l.t.Logf("%d rounds of calls meanwhile", round)
			l.finish("c2")
			l.finish("c1")
			return
		default:
			l.answersSoon(round)
		}
	}
}

// answersSoon makes calls for the exec with the stream, for its container, and for another one.
func (l *lab) answersSoon(round int) {
	l.t.Helper()
	exec := fmt.Sprintf("x%d", round)
	for _, call := range []struct {
		name string
		do   func()
	}{
		{"state of the container", func() { l.running("c1", "") }},
		{"state of the other container", func() { l.running("c2", "") }},
		{"signal to the container", func() { l.kill("c1", "", 0) }},
		{"signal to the other container", func() { l.kill("c2", "", 0) }},
		{"pids", func() { l.pids("c1") }},
		{"an exec of the container", func() { l.lives("c1", exec) }},
		{"an exec of the other container", func() { l.lives("c2", exec) }},
	} {
		began := time.Now()
		call.do()
		if took := time.Since(began); took > soon {
			l.t.Errorf("%s took %v", call.name, took)
		}
	}
}

func (l *lab) running(id, exec string) {
	l.t.Helper()
	if got := l.status(id, exec); got != tasktypes.Status_RUNNING {
		l.t.Errorf("%s %s is %v", id, exec, got)
	}
}

// lives has a short exec live and go.
func (l *lab) lives(id, exec string) {
	l.t.Helper()
	if err := l.oneExec(id, exec, client.BundleConfig{Args: []string{"/bin/true"}}, 0); err != nil {
		l.t.Error(err)
	}
}

// What an init process leaves behind ends with it, or is ended: nothing holds its streams then.
func TestNothingHoldsTheStreamsOfAnInitThatIsGone(t *testing.T) {
	for name, shared := range map[string]bool{"own pids": false, "pids of the host": true} {
		t.Run(name, func(t *testing.T) {
			cfg := sh(holding)
			cfg.HostPID = shared
			l := newLab(t, labConfig{bundle: cfg})
			l.more("c2", sleeper())
			io := l.io("c1", client.IOConfig{})
			l.mustCreate("c1", io)
			began := time.Now()
			l.mustStart("c1", "")
			l.event(client.Exits("c1", ""))
			if status := l.wait("c1", ""); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if got := l.status("c1", ""); got != tasktypes.Status_STOPPED {
				t.Errorf("status %v", got)
			}
			l.running("c2", "")
			l.mustDelete("c1", "")
			if out := l.output(io.Out); out != "ok\n" {
				t.Errorf("output %q", out)
			}
			if took := time.Since(began); took > soon {
				t.Errorf("exit and deletion took %v", took)
			}
			l.finish("c2")
		})
	}
}

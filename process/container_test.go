package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
	"holdfast/internal/client"
	"holdfast/internal/reaper"
	"holdfast/internal/wire"
	"holdfast/test/order"
	"holdfast/test/twin"
)

// history returns what f has logged as the events server would have seen it.
func (f *fixture) history(t *testing.T) []client.Event {
	t.Helper()
	var list []client.Event
	for _, m := range f.events.all() {
		list = append(list, client.Event{Namespace: "test", Topic: topicOf(m), Message: twin.Of(t, m), At: time.Now(), Sent: time.Now()})
	}
	return list
}

func topicOf(m wire.Message) string {
	switch m.(type) {
	case *api.TaskCreate:
		return "/tasks/create"
	case *api.TaskStart:
		return "/tasks/start"
	case *api.TaskExit:
		return "/tasks/exit"
	case *api.TaskDelete:
		return "/tasks/delete"
	case *api.TaskExecAdded:
		return "/tasks/exec-added"
	case *api.TaskExecStarted:
		return "/tasks/exec-started"
	case *api.TaskPaused:
		return "/tasks/paused"
	case *api.TaskResumed:
		return "/tasks/resumed"
	case *api.TaskCheckpointed:
		return "/tasks/checkpointed"
	case *api.TaskOOM:
		return "/tasks/oom"
	}
	return "?"
}

func (f *fixture) topics(t *testing.T) string {
	t.Helper()
	var list []string
	for _, e := range f.history(t) {
		list = append(list, strings.TrimPrefix(e.Topic, "/tasks/"))
	}
	return strings.Join(list, " ")
}

// must waits for the end of a process.
func (f *fixture) must(t *testing.T, exec string) reaper.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	exit, err := f.Wait(ctx, exec)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// eventually polls until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWholeLifeOfAContainer(t *testing.T) {
	f := mustStart(t)
	f.addExec(t, "e1")
	if _, err := f.Start(t.Context(), "e1"); err != nil {
		t.Fatal(err)
	}
	f.runtime.die("e1", 3)
	if exit := f.must(t, "e1"); exit.Status != 3 {
		t.Errorf("exec ended with %d, want 3", exit.Status)
	}
	if _, exit, err := f.Delete(t.Context(), "e1"); err != nil || exit.Status != 3 {
		t.Errorf("delete exec: %d, %v", exit.Status, err)
	}
	f.runtime.die("", 42)
	if exit := f.must(t, ""); exit.Status != 42 {
		t.Errorf("init ended with %d, want 42", exit.Status)
	}
	if _, exit, err := f.Delete(t.Context(), ""); err != nil || exit.Status != 42 {
		t.Errorf("delete: %d, %v", exit.Status, err)
	}
	if !f.forgot.Load() {
		t.Error("the container is not forgotten")
	}
	want := "create start exec-added exec-started exit exit delete"
	if got := f.topics(t); got != want {
		t.Errorf("events %q, want %q", got, want)
	}
	order.Verify(t, f.history(t))
}

func TestExitIsRecordedBeforeWaitersWake(t *testing.T) {
	f := mustStart(t)
	go f.runtime.die("", 7)
	f.must(t, "")
	content, err := os.ReadFile(filepath.Join(f.Bundle(), "exit.json"))
	if err != nil || !strings.Contains(string(content), `"Status":7`) {
		t.Errorf("record %q, %v", content, err)
	}
	if got := f.topics(t); got != "create start exit" {
		t.Errorf("events %q", got)
	}
}

func TestExitWaitsForStart(t *testing.T) {
	f := mustCreate(t)
	f.runtime.on("start", func() error {
		f.runtime.die("", 0) // before the runtime's start has returned
		return nil
	})
	if _, err := f.Start(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	f.must(t, "")
	if got := f.topics(t); got != "create start exit" {
		t.Errorf("events %q", got)
	}
}

func TestInitExitWaitsForExecs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := mustStart(t)
		for _, id := range []string{"e1", "e2"} {
			f.addExec(t, id)
			if _, err := f.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		f.runtime.die("", 1)
		synctest.Wait()
		f.addExec(t, "late") // may be added while the exit is held back (contract 17)
		if _, err := f.Start(t.Context(), "late"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("start of an exec after init's exit: %v", err)
		}
		f.runtime.die("e1", 0)
		f.must(t, "e1")
		synctest.Wait() // until the life of init has come as far as it can
		select {
		case <-f.init.done:
			t.Error("init's exit did not wait for e2")
		default:
		}
		f.runtime.die("e2", 0)
		f.must(t, "")
		f.must(t, "late")
		order.Verify(t, f.history(t), order.EndsInMiddle)
	})
}

func TestExecThatIsBornAfterInitsDeathIsKilled(t *testing.T) {
	f := mustStart(t)
	f.addExec(t, "e1")
	f.runtime.on("exec born", func() error {
		f.runtime.die("", 1)
		eventually(t, "gate closed", f.gate.closed)
		return nil
	})
	if _, err := f.Start(t.Context(), "e1"); err != nil {
		t.Fatal(err)
	}
	f.runtime.die("e1", 137)
	f.must(t, "")
	order.Verify(t, f.history(t), order.EndsInMiddle)
}

func TestFailedExecIsFinal(t *testing.T) {
	f := mustStart(t)
	f.addExec(t, "e1")
	f.runtime.on("exec", func() error { return errFake })
	if _, err := f.Start(t.Context(), "e1"); !errors.Is(err, errFake) {
		t.Fatalf("start: %v", err)
	}
	if exit := f.must(t, "e1"); exit.Status != 0 || !exit.At.IsZero() {
		t.Errorf("exit %+v, want none", exit)
	}
	for range 2 { // upstream's shim panics here (contract 3.3)
		if _, err := f.Start(t.Context(), "e1"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("second start: %v", err)
		}
	}
	if _, _, err := f.Delete(t.Context(), "e1"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := f.State("e1"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("state of the deleted: %v", err)
	}
	if got := f.topics(t); got != "create start exec-added" {
		t.Errorf("events %q", got)
	}
	f.runtime.die("", 0)
	f.must(t, "")
}

func TestExecThatIsNeverStartedIsAbandonedWithItsTask(t *testing.T) {
	f := mustStart(t)
	f.addExec(t, "e1")
	f.runtime.die("", 0)
	if exit := f.must(t, "e1"); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
	if _, _, err := f.Delete(t.Context(), "e1"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func TestDeleteOfACreatedContainerLogsItsExitFirst(t *testing.T) {
	f := mustCreate(t)
	go func() {
		for f.current() == Created && len(f.events.all()) < 2 {
			time.Sleep(time.Millisecond)
			f.runtime.die("", 137) // the signal reaches a fake, which does not die of it
			return
		}
	}()
	if _, exit, err := f.Delete(t.Context(), ""); err != nil || exit.Status != 137 {
		t.Errorf("delete: %+v, %v", exit, err)
	}
	if got := f.topics(t); got != "create exit delete" {
		t.Errorf("events %q", got)
	}
}

func (f *fixture) current() State { return f.init.current() }

func TestConcurrentDeletesShareOneResult(t *testing.T) {
	f := mustStart(t)
	f.runtime.die("", 5)
	f.must(t, "")
	release, calls := make(chan struct{}), make(chan struct{}, 10)
	f.runtime.on("delete", func() error { calls <- struct{}{}; <-release; return nil })
	impatient, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() { _, _, err := f.Delete(impatient, ""); gaveUp <- err }()
	<-calls
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("impatient caller: %v", err)
	}
	results := make(chan error, 3)
	for range 3 {
		go func() { _, _, err := f.Delete(t.Context(), ""); results <- err }()
	}
	close(release)
	for range 3 {
		if err := <-results; err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if len(calls) != 0 || !f.forgot.Load() {
		t.Errorf("runtime deleted %d times more; forgotten: %v", len(calls), f.forgot.Load())
	}
}

func TestFailedDeleteMayBeRepeated(t *testing.T) {
	f := mustStart(t)
	f.runtime.die("", 5)
	f.must(t, "")
	f.runtime.on("delete", func() error { return errFake })
	if _, _, err := f.Delete(t.Context(), ""); !errors.Is(err, errFake) {
		t.Errorf("delete: %v", err)
	}
	f.runtime.on("delete", nil)
	if _, exit, err := f.Delete(t.Context(), ""); err != nil || exit.Status != 5 {
		t.Errorf("delete again: %+v, %v", exit, err)
	}
	order.Verify(t, f.history(t))
}

func TestStateKillAndPidsAnswerWhileACommandHangs(t *testing.T) {
	f := mustCreate(t)
	release, inside := make(chan struct{}), make(chan struct{})
	f.runtime.on("start", func() error { close(inside); <-release; return nil })
	started := make(chan error, 1)
	go func() { _, err := f.Start(t.Context(), ""); started <- err }()
	<-inside
	if info, err := f.State(""); err != nil || info.State != Created {
		t.Errorf("state: %+v, %v", info, err)
	}
	if err := f.Kill(t.Context(), "", syscall.SIGTERM, false); err != nil {
		t.Errorf("kill: %v", err)
	}
	if pids, _ := f.Pids(t.Context()); len(pids) != 1 {
		t.Errorf("pids: %v", pids)
	}
	hurry, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Pause(hurry); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("pause behind a hanging start: %v", err)
	}
	close(release)
	if err := <-started; err != nil {
		t.Errorf("start: %v", err)
	}
	f.runtime.die("", 0)
	f.must(t, "")
}

func TestPausingIsShownWhileTheRuntimePauses(t *testing.T) {
	f := mustStart(t)
	f.addExec(t, "e1")
	if _, err := f.Start(t.Context(), "e1"); err != nil {
		t.Fatal(err)
	}
	f.runtime.on("pause", func() error {
		for _, exec := range []string{"", "e1"} {
			if info, _ := f.State(exec); info.State != Pausing {
				t.Errorf("%q is shown as %s", exec, info.State)
			}
		}
		if err := f.Container.Exec(ExecConfig{ID: "e2"}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("exec while pausing: %v", err)
		}
		return nil
	})
	if err := f.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, _ := f.State("e1"); info.State != Paused {
		t.Errorf("exec is shown as %s", info.State)
	}
	if err := f.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.runtime.die("e1", 0)
	f.runtime.die("", 0)
	f.must(t, "")
	order.Verify(t, f.history(t), order.EndsInMiddle)
}

func TestFailedCreateLeavesNothingAndLogsNothing(t *testing.T) {
	deleted := false
	for name, edit := range map[string]func(*fixture, *Config){
		"runtime fails": func(f *fixture, _ *Config) { f.runtime.on("create", func() error { return errFake }) },
		"no such FIFO":  func(_ *fixture, c *Config) { c.Stdout = "/no/such/fifo" },
		"no config":     func(_ *fixture, c *Config) { c.Bundle = t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := newFixture(t, func(c *Config) {
				edit(&fixture{runtime: c.Runtime.(*fakeRuntime)}, c)
			})
			if err == nil {
				t.Fatal("no error")
			}
			if n := len(f.events.all()); n != 0 || deleted {
				t.Errorf("%d events", n)
			}
		})
	}
}

func TestRestoredContainerHasNoProcessBeforeItsStart(t *testing.T) {
	f, err := newFixture(t, func(c *Config) { c.Checkpoint = "/image" })
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := f.State(""); info.Pid != 0 || info.State != Created {
		t.Errorf("state %+v", info)
	}
	if err := f.Container.Exec(ExecConfig{ID: "e1"}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("exec: %v", err)
	}
	if pid, err := f.Start(t.Context(), ""); err != nil || pid == 0 {
		t.Errorf("start: %d, %v", pid, err)
	}
	f.runtime.die("", 0)
	f.must(t, "")
	if _, _, err := f.Delete(t.Context(), ""); err != nil {
		t.Errorf("delete: %v", err)
	}
	if got := f.topics(t); got != "create start exit delete" {
		t.Errorf("events %q", got)
	}
}

func TestRestoredContainerCanBeDeletedUnstarted(t *testing.T) {
	f, err := newFixture(t, func(c *Config) { c.Checkpoint = "/image" })
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Delete(t.Context(), ""); err != nil {
		t.Errorf("delete: %v", err)
	}
	f.must(t, "")
}

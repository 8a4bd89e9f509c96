package direct

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

const many = 8

// atOnce calls do several times at the same moment and returns what came of it.
func atOnce(do func() error) (succeeded int, refusals []error) {
	var all sync.WaitGroup
	results := make(chan error, many)
	begin := make(chan struct{})
	for range many {
		all.Go(func() {
			<-begin
			results <- do()
		})
	}
	close(begin)
	all.Wait()
	for range many {
		if err := <-results; err != nil {
			refusals = append(refusals, err)
		} else {
			succeeded++
		}
	}
	return succeeded, refusals
}

// Of many that do the same thing at the same time one does it, and nothing is told twice (T25).
func TestOneOfManyAtTheSameTime(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	ctx := within(t)
	one := func(what string, kind error, do func() error) {
		t.Helper()
		succeeded, refusals := atOnce(do)
		if succeeded != 1 {
			t.Errorf("%s: %d succeeded", what, succeeded)
		}
		for _, err := range refusals {
			is(t, what, err, kind)
		}
	}
	one("create", errdefs.ErrAlreadyExists, func() error { _, err := l.Create(ctx, l.createRequest("c1", nil)); return err })
	one("start", errdefs.ErrFailedPrecondition, func() error {
		_, err := l.Start(ctx, &task.StartRequest{ID: "c1"})
		return err
	})
	one("exec", errdefs.ErrAlreadyExists, func() error { return l.exec("c1", "e1", sh("exit 4"), nil) })
	one("start of an exec", errdefs.ErrFailedPrecondition, func() error {
		_, err := l.Start(ctx, &task.StartRequest{ID: "c1", ExecID: "e1"})
		return err
	})
	if got := l.wait("c1", "e1"); got != 4 {
		t.Errorf("the exec ended with %d", got)
	}
	one("pause", errdefs.ErrFailedPrecondition, func() error { _, err := l.Pause(ctx, &task.PauseRequest{ID: "c1"}); return err })
	one("resume", errdefs.ErrFailedPrecondition, func() error { _, err := l.Resume(ctx, &task.ResumeRequest{ID: "c1"}); return err })
	l.kill("c1", "", 9)
	waited, refusals := atOnce(func() error { _, err := l.Wait(ctx, &task.WaitRequest{ID: "c1"}); return err })
	if waited != many {
		t.Errorf("%d waits of %d succeeded: %v", waited, many, refusals)
	}
	// Those who come while a deletion is under way share its result; later there is nothing left.
	deleted, refusals := atOnce(func() error {
		a, err := l.Delete(ctx, &task.DeleteRequest{ID: "c1"})
		if err == nil && a.GetExitStatus() != 137 {
			return errors.New("wrong status")
		}
		return err
	})
	if deleted == 0 {
		t.Error("no delete succeeded")
	}
	for _, err := range refusals {
		is(t, "delete", err, errdefs.ErrNotFound)
	}
	l.event(client.Deletes("c1", ""))
	if got, want := len(l.Events.All()), 9; got != want {
		t.Errorf("%d events, want %d", got, want)
	}
}

// Whoever waits for an exec that is deleted before it ran, or can never run, is let go.
func TestWaitersForAnExecThatNeverRuns(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	waiting := func(exec string) <-chan error {
		l.mustExec("c1", exec, sleeper(), nil)
		result := make(chan error, 1)
		go func() {
			a, err := l.Wait(within(t), &task.WaitRequest{ID: "c1", ExecID: exec})
			if err == nil && (a.GetExitStatus() != 0 || !client.Time(a.GetExitedAt()).IsZero()) {
				err = errors.New("it has an exit: " + a.String())
			}
			result <- err
		}()
		return result
	}
	deleted, outlived := waiting("e1"), waiting("e2")
	select {
	case err := <-deleted:
		t.Errorf("a wait returned before there was a reason: %v", err)
	case <-time.After(50 * time.Millisecond): // in which it would have
	}
	l.mustDelete("c1", "e1")
	if err := <-deleted; err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("wait for a deleted exec: %v", err)
	}
	l.kill("c1", "", 9)
	l.wait("c1", "")
	if err := <-outlived; err != nil {
		t.Errorf("wait for an exec of a container that has ended: %v", err)
	}
	l.mustDelete("c1", "")
}

// A client that gives up its delete does not end it: it is done, and then answered NotFound, which
// managers take for done (issue 7496).
func TestDeleteIsFinishedWhenItsClientGivesUp(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	l.kill("c1", "", 9)
	l.wait("c1", "")
	l.script("c1", map[string]step{"delete": {"pause": "begin"}})
	ctx, cancel := context.WithCancel(within(t))
	gaveUp := make(chan error, 1)
	go func() { _, err := l.Delete(ctx, &task.DeleteRequest{ID: "c1"}); gaveUp <- err }()
	l.reached("c1", "delete", "begin")
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("delete: %v", err)
	}
	l.release("c1", "delete", "begin")
	l.event(client.Deletes("c1", ""))
	_, err := l.Delete(within(t), &task.DeleteRequest{ID: "c1"})
	is(t, "second delete", err, errdefs.ErrNotFound)
}

// The exit of an exec is told when it has exited, though its children hold its streams; deleting
// it waits for those, but not for ever (contract 3.6, 17).
func TestExitDoesNotWaitForTheStreams(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	io := l.io("e1", client.IOConfig{})
	l.mustExec("c1", "e1", sh("(sleep 3; echo late) & echo early"), io)
	began := time.Now()
	l.mustStart("c1", "e1")
	l.wait("c1", "e1")
	l.event(client.Exits("c1", "e1"))
	exited := time.Since(began)
	l.mustDelete("c1", "e1")
	deleted := time.Since(began)
	out := l.output(io.Out)
	t.Logf("exit told after %v, deleted after %v", exited.Round(time.Millisecond), deleted.Round(time.Millisecond))
	if exited > 2500*time.Millisecond || deleted < 2500*time.Millisecond || deleted > 12*time.Second {
		t.Error("the exit waited for the streams, or the deletion did not")
	}
	if out != "early\nlate\n" {
		t.Errorf("output %q", out)
	}
	l.finish("c1")
}

// Both versions of the service are there, whichever the shim was started for (T65).
func TestBothVersionsOnOneSocket(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("exit 5")})
	l.mustCreate("c1", nil)
	a, err := l.V2().State(within(t), &taskv2.StateRequest{ID: "c1"})
	if err != nil || a.GetID() != "c1" || a.GetPid() == 0 {
		t.Errorf("state by v2: %v, %v", a, err)
	}
	if _, err := l.V2().Start(within(t), &taskv2.StartRequest{ID: "c1"}); err != nil {
		t.Fatal(err)
	}
	w, err := l.V2().Wait(within(t), &taskv2.WaitRequest{ID: "c1"})
	if err != nil || w.GetExitStatus() != 5 {
		t.Errorf("wait by v2: %v, %v", w, err)
	}
	_, err = l.V2().Kill(within(t), &taskv2.KillRequest{ID: "c1", Signal: 9})
	is(t, "kill by v2", err, errdefs.ErrNotFound)
	l.mustDelete("c1", "")
}

package direct

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

// A manager whose client gives up during a create asks for the task's deletion and for the end of
// the shim, hangs up and runs the delete action, all within seconds (contract 3.4). However long the
// runtime takes, nothing may come of its create afterwards, and the shim must not stay.
func TestCreateThatItsManagerGaveUpLeavesNothing(t *testing.T) {
	for _, point := range []string{"begin", "born", "end"} {
		t.Run(point, func(t *testing.T) {
			l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
			l.opts.Root = filepath.Join(l.dir, "r")
			l.script("c1", map[string]step{"create": {"pause": point}})
			pid := l.Pid()
			l.giveUpCreate(point)
			l.release("c1", "create", point)
			l.killed = true
			for end := time.Now().Add(limit); isShim(pid); time.Sleep(2 * time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("the shim stays: %v", syscall.Kill(pid, syscall.SIGKILL))
					break
				}
			}
			if left, err := os.ReadDir(filepath.Join(l.dir, "r", l.name)); err == nil && len(left) > 0 {
				t.Errorf("the runtime still has %v", left)
			}
			l.cleanUp("c1")
			if events := l.Events.All(); len(events) > 0 {
				t.Errorf("events of a container that never was: %v", events)
			}
			l.Close()
		})
	}
}

// giveUpCreate creates c1, whose runtime pauses at point, and does what containerd does when the
// client of that gives up.
func (l *lab) giveUpCreate(point string) {
	l.t.Helper()
	ctx, giveUp := context.WithCancel(within(l.t))
	created := make(chan error, 1)
	go func() { _, err := l.Create(ctx, l.createRequest("c1", nil)); created <- err }()
	l.reached("c1", "create", point)
	giveUp()
	if err := <-created; err == nil {
		l.t.Fatal("created")
	}
	_, err := l.Delete(within(l.t), &task.DeleteRequest{ID: "c1"})
	is(l.t, "delete", err, errdefs.ErrNotFound)
	l.shutDown("c1")
	l.Shim.Close()
	l.cleanUp("c1")
}

// The same with a deletion that takes longer than its caller waits: the shim ends after it, though
// it was asked to before.
func TestShimEndsAfterADeleteThatItsManagerGaveUp(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	l.kill("c1", "", 9)
	l.wait("c1", "")
	l.script("c1", map[string]step{"delete": {"pause": "begin"}})
	ctx, giveUp := context.WithCancel(within(t))
	deleted := make(chan error, 1)
	go func() { _, err := l.Delete(ctx, &task.DeleteRequest{ID: "c1"}); deleted <- err }()
	l.reached("c1", "delete", "begin")
	giveUp()
	if err := <-deleted; err == nil {
		t.Fatal("deleted")
	}
	l.shutDown("c1")
	if l.status("c1", "") == 0 {
		t.Error("the task is gone before its deletion is done")
	}
	l.release("c1", "delete", "begin")
	l.gone()
	l.event(client.Deletes("c1", ""))
	l.killed = true
	l.cleanUp("c1")
	l.Close()
}

// The same, but the deletion fails when nobody is left to ask again.
func TestDeleteThatFailsWithoutItsCallerIsRepeated(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	l.kill("c1", "", 9)
	l.wait("c1", "")
	l.script("c1", map[string]step{"delete": {"pause": "begin", "error": "no luck"}})
	ctx, giveUp := context.WithCancel(within(t))
	deleted := make(chan error, 1)
	go func() { _, err := l.Delete(ctx, &task.DeleteRequest{ID: "c1"}); deleted <- err }()
	l.reached("c1", "delete", "begin")
	giveUp()
	if err := <-deleted; err == nil {
		t.Fatal("deleted")
	}
	l.shutDown("c1")
	l.script("c1", map[string]step{"delete": {"record": "calls"}}) // from the next call on
	l.release("c1", "delete", "begin")
	l.gone()
	l.event(client.Deletes("c1", ""))
	l.killed = true
	l.cleanUp("c1")
	l.Close()
}

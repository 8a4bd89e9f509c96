package direct

import (
	"context"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// promptly fails the test unless call is answered at once, whatever else is stuck.
func (l *lab) promptly(what string, call func(ctx context.Context) error) {
	l.t.Helper()
	for range 20 {
		began := time.Now()
		if err := call(within(l.t)); err != nil {
			l.t.Errorf("%s: %v", what, err)
			return
		}
		// A machine with other things to do needs a second try.
		if time.Since(began) < 10*time.Millisecond {
			return
		}
	}
	l.t.Errorf("%s is never answered within 10 ms", what)
}

// A deletion that is stuck, here before an unmount that would take as long, is shared by all who ask
// for it, goes on when they give up, and delays nothing else (demand.md 16, 17, 35, 36).
func TestDeletesShareOneResult(t *testing.T) {
	const stuck = "delete-2"
	l := newStoppable(t, stuck, labConfig{bundle: grouped(sh("exit 5"), "g")})
	create := l.createRequest("c1", nil)
	create.Rootfs = []*types.Mount{{Type: "bind", Source: l.rootfsElsewhere("c1"), Options: []string{"rbind", "rw"}}}
	if _, err := l.Create(within(t), create); err != nil {
		t.Fatal(err)
	}
	l.mustStart("c1", "")
	l.wait("c1", "")
	l.join("c2", grouped(sleeper(), "g"))
	l.run("c2", nil)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Delete(short, &task.DeleteRequest{ID: "c1"}); err == nil {
		t.Fatal("deleted")
	}
	l.stopped(stuck)
	type result struct {
		answer *task.DeleteResponse
		err    error
	}
	results := make(chan result)
	const callers = 5
	for range callers {
		go func() {
			answer, err := l.Delete(within(t), &task.DeleteRequest{ID: "c1"})
			results <- result{answer, err}
		}()
	}
	for _, id := range []string{"c1", "c2"} {
		l.promptly("State of "+id, func(ctx context.Context) error {
			_, err := l.State(ctx, &task.StateRequest{ID: id})
			return err
		})
	}
	l.promptly("Kill of c2", func(ctx context.Context) error {
		_, err := l.Kill(ctx, &task.KillRequest{ID: "c2", Signal: 0})
		return err
	})
	l.promptly("Connect", func(ctx context.Context) error {
		_, err := l.Connect(ctx, &task.ConnectRequest{ID: "c1"})
		return err
	})
	l.goOn(stuck)
	var first *task.DeleteResponse
	for range callers {
		r := <-results
		if r.err != nil {
			t.Errorf("delete: %v", r.err)
			continue
		}
		if first == nil {
			first = r.answer
		}
		if r.answer.GetExitStatus() != 5 || !proto.Equal(first, r.answer) {
			t.Errorf("one got %v, another %v", first, r.answer)
		}
	}
	_, err := l.Delete(within(t), &task.DeleteRequest{ID: "c1"})
	is(t, "a late delete", err, errdefs.ErrNotFound)
	if n := l.mountsOf("c1"); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	l.kill("c2", "", 9)
	l.wait("c2", "")
	go func() {
		answer, err := l.Delete(within(t), &task.DeleteRequest{ID: "c2"})
		results <- result{answer, err}
	}()
	l.stopped(stuck)
	l.goOn(stuck)
	if r := <-results; r.err != nil || r.answer.GetExitStatus() != 137 {
		t.Errorf("delete of c2: %v", r)
	}
}

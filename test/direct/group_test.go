package direct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// grouped is a bundle whose annotation puts it into a group.
func grouped(cfg client.BundleConfig, group string) client.BundleConfig {
	cfg.Annotations = map[string]string{"io.containerd.runc.v2.group": group}
	return cfg
}

// join runs the start action for a further container, and returns the address it answers.
func (l *lab) join(id string, cfg client.BundleConfig) string {
	l.t.Helper()
	start := l.Config
	start.ID, start.Bundle = id, l.bundle(id, cfg)
	log, err := client.OpenLog(start.Bundle, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(log.Close)
	answer, err := client.Start(within(l.t), start)
	if err != nil {
		l.t.Fatalf("start for %s: %v", id, err)
	}
	return answer.Address
}

// leave does what a manager does with each container but the last: delete the task, ask the shim
// to shut down, hang up, run the delete action, remove the bundle.
func (l *lab) leave(id string) *task.DeleteResponse {
	l.t.Helper()
	own, err := client.Dial(within(l.t), l.Result.Address)
	if err != nil {
		l.t.Fatal(err)
	}
	a, err := own.Delete(within(l.t), &task.DeleteRequest{ID: id})
	if err != nil {
		l.t.Fatalf("delete %s: %v", id, err)
	}
	began := time.Now()
	if _, err := own.Shutdown(within(l.t), &task.ShutdownRequest{ID: id}); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		l.t.Errorf("shutdown after %s: %v", id, err)
	}
	if took := time.Since(began); took > tolerant {
		l.t.Errorf("shutdown after %s took %v", id, took)
	}
	own.Close()
	l.cleanUp(id)
	if err := os.RemoveAll(filepath.Join(l.dir, id)); err != nil {
		l.t.Error(err)
	}
	return a
}

func TestThreeContainersInOneShim(t *testing.T) {
	l := newLab(t, labConfig{bundle: grouped(sh("echo one; exec sleep 1000"), "g")})
	for _, id := range []string{"c2", "c3"} {
		if got := l.join(id, grouped(sh("echo "+id+"; exec sleep 1000"), "g")); got != l.Result.Address {
			t.Errorf("start for %s answers %s, want %s", id, got, l.Result.Address)
		}
	}
	for id, says := range map[string]string{"c1": "one", "c2": "c2", "c3": "c3"} {
		io := l.io(id, client.IOConfig{})
		l.run(id, io)
		if err := io.Out.WaitFor(within(t), says+"\n"); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if a, err := l.State(within(t), &task.StateRequest{ID: id}); err != nil || a.GetBundle() != filepath.Join(l.dir, id) {
			t.Errorf("state of %s: %v, %v", id, a, err)
		}
	}
	// The first goes first: its bundle is the one in which the shim was started (T9).
	for _, id := range []string{"c1", "c3"} {
		l.kill(id, "", 9)
		l.wait(id, "")
		l.leave(id)
		_, err := l.State(within(t), &task.StateRequest{ID: id})
		is(t, "state of "+id, err, errdefs.ErrNotFound)
		if got := l.runExec("c2", "after-"+id, sh("exit 6")); got <= 0 {
			t.Errorf("pid %d", got)
		}
		if got := l.wait("c2", "after-"+id); got != 6 {
			t.Errorf("an exec after %s left ended with %d", id, got)
		}
	}
	// One more may come, with the id of one that left.
	if got := l.join("c1", grouped(sleeper(), "g")); got != l.Result.Address {
		t.Errorf("start for another c1 answers %s", got)
	}
	l.run("c1", nil)
	l.finish("c1")
	l.kill("c2", "", 9)
	l.wait("c2", "")
	l.leave("c2")
	l.gone()
	l.killed = true
	l.cleanUp("c1")
	order.Verify(t, l.Events.All())
	l.Close()
}

// gone waits until the shim has ended, and checks that its socket has too.
func (l *lab) gone() {
	l.t.Helper()
	select {
	case <-l.Done():
	case <-time.After(limit):
		l.t.Fatal("the shim does not end")
	}
	path := strings.TrimPrefix(l.Result.Address, "unix://")
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		l.t.Errorf("the socket of a shim that has ended: %v", err)
	}
}

// A create that meets a shutdown either is done, and the shim stays, or is refused whole (T58).
func TestCreateRacingShutdown(t *testing.T) {
	created, refused := 0, 0
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
			l.opts.Root = filepath.Join(l.dir, "r")
			l.bundle("c2", sleeper())
			other, err := client.Dial(within(t), l.Result.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			var all sync.WaitGroup
			var shutdown, create error
			all.Go(func() {
				_, shutdown = other.Shutdown(within(t), &task.ShutdownRequest{ID: "c1"})
			})
			all.Go(func() {
				time.Sleep(time.Duration(round%5) * 200 * time.Microsecond)
				_, create = l.create("c2", nil)
			})
			all.Wait()
			if shutdown != nil && !errors.Is(shutdown, ttrpc.ErrClosed) {
				t.Errorf("shutdown: %v", shutdown)
			}
			if create == nil {
				created++
				l.mustStart("c2", "")
				l.finish("c2")
				return
			}
			refused++
			if !errors.Is(create, errdefs.ErrUnavailable) && !errors.Is(create, ttrpc.ErrClosed) {
				t.Errorf("create: %v", create)
			}
			l.gone()
			if left, err := os.ReadDir(filepath.Join(l.dir, "r", l.name)); err == nil && len(left) > 0 {
				t.Errorf("a create that was refused has left %v", left)
			}
			l.killed = true
			l.cleanUp("c2")
			l.cleanUp("c1")
			order.Verify(t, l.Events.All())
			l.Close()
		})
	}
	t.Logf("%d created, %d refused", created, refused)
}

// crash kills the shim.
func (l *lab) crash() {
	l.t.Helper()
	if err := syscall.Kill(l.pid(), syscall.SIGKILL); err != nil {
		l.t.Fatal(err)
	}
	<-l.Done()
	l.killed = true
}

// After a crash each container of the group is cleaned up by an action of its own, all at the same
// time. Those that had ended keep their status, the others were killed (contract 2.3).
func TestStatusesSurviveACrashOfTheShim(t *testing.T) {
	for _, group := range []string{"g", "c1"} {
		t.Run("group "+group, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: grouped(sh("exit 42"), group), relax: []order.Option{order.EndsInMiddle}})
			l.join("c2", grouped(sh("exit 43"), group))
			l.join("c3", grouped(sh("sleep 1000 & exec sleep 1000"), group))
			pids := map[string]int{}
			for _, id := range []string{"c1", "c2", "c3"} {
				pids[id] = l.run(id, nil)
			}
			l.runExec("c3", "e1", sleeper())
			if a, b := l.wait("c1", ""), l.wait("c2", ""); a != 42 || b != 43 {
				t.Errorf("exit statuses %d and %d", a, b)
			}
			l.crash()
			want := map[string]uint32{"c1": 42, "c2": 43, "c3": 137}
			var all sync.WaitGroup
			for id := range want {
				all.Go(func() {
					a := l.cleanUp(id)
					if a.GetExitStatus() != want[id] || int(a.GetPid()) != pids[id] || client.Time(a.GetExitedAt()).IsZero() {
						t.Errorf("delete action for %s answers %v, want status %d and pid %d", id, a, want[id], pids[id])
					}
				})
			}
			all.Wait()
			l.noStrays()
			for id := range want { // again, as containerd may
				if a := l.cleanUp(id); a.GetExitStatus() != want[id] {
					t.Errorf("second delete action for %s answers %v", id, a)
				}
			}
			// The socket of a group whose name is no container's stays until the next start.
			if err := os.Remove(strings.TrimPrefix(l.Result.Address, "unix://")); err != nil && group == "g" {
				t.Error(err)
			}
			order.Verify(t, l.Events.All(), l.relax...)
			l.Close()
		})
	}
}

// The delete action beside a live shim touches its own container only (T63b).
func TestDeleteActionBesideALiveShim(t *testing.T) {
	l := newLab(t, labConfig{bundle: grouped(sleeper(), "c1")})
	l.join("c2", grouped(sh("exit 3"), "c1"))
	c1 := l.run("c1", nil)
	l.run("c2", nil)
	l.wait("c2", "")
	l.mustDelete("c2", "")
	for range 3 {
		if a := l.cleanUp("c2"); a.GetExitStatus() != 3 {
			t.Errorf("it answers %v", a)
		}
		l.unharmed("the delete action for c2", c1)
	}
	l.finish("c1")
}

// A shim that only ever gets Delete, Shutdown and a closed connection ends (contract 3.4).
func TestShimWithoutATaskEnds(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	_, err := l.Delete(context.Background(), &task.DeleteRequest{ID: "c1"})
	is(t, "delete of what was never created", err, errdefs.ErrNotFound)
	l.shutDown("c1")
	l.gone()
	l.killed = true
	if a := l.cleanUp("c1"); a.GetPid() != 0 || a.GetExitStatus() != 137 {
		t.Errorf("delete action answers %v", a)
	}
	l.Close()
}

package direct

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// TestEntrypointIsMissing is upstream's regression test 6429: nothing must be told of a container
// that never was, although the runtime's init process has lived and died.
func TestEntrypointIsMissing(t *testing.T) {
	l := newLab(t, labConfig{bundle: client.BundleConfig{Args: []string{"/no/such/program"}}})
	_, err := l.create("c1", nil)
	if err == nil {
		t.Fatal("created")
	}
	t.Logf("the runtime says: %s", err)
	if !strings.HasPrefix(err.Error(), "OCI runtime create failed: ") || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("message %q", err)
	}
	_, err = l.State(within(t), &task.StateRequest{ID: "c1"})
	is(t, "state after a failed create", err, errdefs.ErrNotFound)
	_, err = l.Delete(within(t), &task.DeleteRequest{ID: "c1"})
	is(t, "delete after a failed create", err, errdefs.ErrNotFound)

	// The same id again, and nothing of the first attempt is in the way or in the events.
	l.ids = nil
	l.bundle("c1", sleeper())
	l.run("c1", nil)
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	var topics []string
	for _, e := range l.Events.All() {
		topics = append(topics, e.Topic)
	}
	if got := strings.Join(topics, " "); got != "/tasks/create /tasks/start /tasks/exit /tasks/delete" {
		t.Errorf("events: %s", got)
	}
}

func TestFIFOsThatNobodyOpensHoldUpNothing(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("exit 5")})
	io := &client.IO{}
	for name, path := range map[string]*string{"in": &io.Stdin, "out": &io.Stdout, "err": &io.Stderr} {
		*path = filepath.Join(l.dir, name)
		if err := syscall.Mkfifo(*path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	l.mustCreate("c1", io)
	created := time.Since(began)
	l.mustStart("c1", "")
	started := time.Since(began)
	if got := l.wait("c1", ""); got != 5 {
		t.Errorf("exit status %d", got)
	}
	l.mustDelete("c1", "")
	deleted := time.Since(began)
	t.Logf("created after %v, started after %v, deleted after %v", created, started, deleted)
	if deleted > 5*time.Second {
		t.Errorf("deleted after %v", deleted)
	}
}

// A container whose start has failed can be started again, or deleted.
func TestStartAgainAfterAFailedStart(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.mustCreate("c1", nil)
	l.script("c1", map[string]step{"start": {"error": "cannot start: no luck"}})
	for range 2 {
		_, err := l.start("c1", "")
		if err == nil || err.Error() != "OCI runtime start failed: cannot start: no luck" {
			t.Fatalf("start: %v", err)
		}
	}
	if n := count(l.Events.All(), func(e client.Event) bool { return e.Topic == "/tasks/start" }); n != 0 {
		t.Errorf("%d events of a start that failed", n)
	}
	l.script("c1", nil)
	l.mustStart("c1", "")
	l.finish("c1")
}

// A start that fails must not free waiters, and the exit of a container whose start failed is told.
func TestInitThatDiesInAFailedStartIsStillReported(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	pid := l.mustCreate("c1", nil)
	l.script("c1", map[string]step{"start": {"error": "no luck", "pause": "begin"}})
	failed := make(chan error, 1)
	go func() {
		_, err := l.start("c1", "")
		failed <- err
	}()
	l.reached("c1", "start", "begin")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.release("c1", "start", "begin")
	if err := <-failed; err == nil {
		t.Error("started")
	}
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	l.mustDelete("c1", "")
}

// A failed delete leaves the task, which can be deleted again.
func TestDeleteAgainAfterAFailedDelete(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	l.kill("c1", "", 9)
	l.wait("c1", "")
	l.script("c1", map[string]step{"delete": {"error": "device or resource busy"}})
	_, err := l.Delete(within(t), &task.DeleteRequest{ID: "c1"})
	if err == nil || err.Error() != "failed to delete task: device or resource busy" {
		t.Fatalf("delete: %v", err)
	}
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d after a failed delete", got)
	}
	l.script("c1", nil)
	if got := l.mustDelete("c1", ""); got.GetExitStatus() != 137 {
		t.Errorf("delete answers %v", got)
	}
	_, err = l.Delete(within(t), &task.DeleteRequest{ID: "c1"})
	is(t, "third delete", err, errdefs.ErrNotFound)
	e := l.event(client.Deletes("c1", ""))
	if status := e.Message.(*events.TaskDelete).GetExitStatus(); status != 137 {
		t.Errorf("the event says %d", status)
	}
}

// A failed create leaves neither its container, nor the mounts, nor the options of another try.
func TestFailedCreateLeavesNoRuntimeState(t *testing.T) {
	for name, create := range map[string]step{
		"error":       {"error": "no luck"},
		"no pid file": {"pidFile": "missing"},
		"garbage":     {"pidFile": "garbage"},
		"dead pid":    {"child": map[string]any{"none": true}},
		"signal":      {"signal": 9},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
			l.opts.Root = filepath.Join(l.dir, "r")
			l.script("c1", map[string]step{"create": create})
			_, err := l.create("c1", nil)
			if err == nil {
				t.Fatal("created")
			}
			t.Log(err)
			entries, err := os.ReadDir(filepath.Join(l.dir, "r", l.name))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			for _, e := range entries {
				t.Errorf("left in the runtime's state: %s", e.Name())
			}
			l.script("c1", nil)
			l.run("c1", nil)
			l.finish("c1")
		})
	}
}

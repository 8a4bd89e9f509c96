package direct

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// A panic in a request is the end of the request, not of the pod.
func TestPanicInARequest(t *testing.T) {
	l := newStoppable(t, "create-2=panic", labConfig{bundle: sh("exit 0")})
	_, err := l.create("c1", nil)
	is(t, "create", err, errdefs.ErrInternal)
	if err != nil && !strings.Contains(err.Error(), "the shim has a bug (at create-2)") {
		t.Errorf("create: %v", err)
	}
	if _, err := l.State(within(t), &task.StateRequest{ID: "c1"}); err == nil {
		t.Error("the task is there")
	}
}

// A panic in the life of a container ends the container, not the others, and nobody waits for ever.
func TestPanicInALife(t *testing.T) {
	l := newStoppable(t, "exit-3=panic", labConfig{bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
	l.run("c1", nil)
	l.kill("c1", "", 9)
	if got := l.wait("c1", ""); got != 255 {
		t.Errorf("exit status %d", got)
	}
	l.crash()
	l.cleanUp("c1")
	l.Close()
}

// A panic that nobody catches leaves its stack in the bundle, and the delete action tells of it.
func TestPanicOfTheShim(t *testing.T) {
	l := newStoppable(t, "shutdown-1=panic", labConfig{bundle: sh("exit 3"), relax: []order.Option{order.EndsInMiddle}})
	l.run("c1", nil)
	if got := l.wait("c1", ""); got != 3 {
		t.Errorf("exit status %d", got)
	}
	if err := syscall.Kill(l.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-l.Done()
	l.killed = true
	if got := l.read(filepath.Join(l.dir, "c1", "panic.log")); !strings.Contains(got, "panic: at shutdown-1") || !strings.Contains(got, "daemon.go:") {
		t.Errorf("panic.log holds %q", got)
	}
	answer, warnings, err := client.Delete(context.Background(), l.Config)
	if err != nil || answer.GetExitStatus() != 3 {
		t.Errorf("the delete action: %v, %v", answer, err)
	}
	if !strings.Contains(warnings, "the shim has crashed") || !strings.Contains(warnings, "panic: at shutdown-1") {
		t.Errorf("the delete action says %q", warnings)
	}
	l.Close()
}

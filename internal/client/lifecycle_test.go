package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// upstream is the shim of Debian's containerd 1.6, which speaks the legacy protocol and version 2.
const upstream = "/usr/bin/containerd-shim-runc-v2"

func needRoot(t *testing.T, binaries ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	for _, binary := range binaries {
		if _, err := os.Stat(binary); err != nil {
			t.Skipf("needs %s: %v", binary, err)
		}
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// launch starts upstream's shim for a bundle of its own. What the test leaves behind is cleaned
// up, however the test ends.
func launch(t *testing.T, ctx context.Context, id string, bundle client.BundleConfig) *client.Session {
	t.Helper()
	dir := shortDir(t)
	path := filepath.Join(dir, id)
	if err := client.NewBundle(path, bundle); err != nil {
		t.Fatal(err)
	}
	s, err := client.Launch(ctx, dir, client.StartConfig{
		Binary: upstream, ID: id, Namespace: "client-test", Bundle: path,
		Legacy: true, Containerd: "1.6.20",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.Done(): // the test has ended it
		default:
			if _, _, err := s.Crash(deadline(t, 20*time.Second)); err != nil {
				t.Error(err)
			}
		}
		// The legacy protocol has no private directory for sockets, and a killed shim leaves its own.
		if err := os.Remove(strings.TrimPrefix(s.Result.Address, "unix://")); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	return s
}

// shortDir is a temporary directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestUpstreamShimLivesAWholeLife(t *testing.T) {
	needRoot(t, upstream)
	ctx := deadline(t, 60*time.Second)
	s := launch(t, ctx, "c1", client.BundleConfig{Args: []string{"sh", "-c", "echo hello; cat; exit 7"}})
	if s.Version != 2 {
		t.Errorf("version is %d, want 2 from a plain address", s.Version)
	}
	streams, err := client.OpenIO(filepath.Dir(s.Config.Bundle), "c1", client.IOConfig{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(streams.Close)
	create := &task.CreateTaskRequest{
		ID: "c1", Bundle: s.Config.Bundle,
		Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr,
	}
	if _, err := s.Create(ctx, create); err != nil {
		t.Fatalf("create: %v; log: %s", err, s.Log)
	}
	if _, err := s.Start(ctx, &task.StartRequest{ID: "c1"}); err != nil {
		t.Fatal(err)
	}
	if err := streams.Out.WaitFor(ctx, "hello\n"); err != nil {
		t.Error(err)
	}
	execExits(t, ctx, s, "c1", "e1", 3)

	if _, err := streams.In.Write([]byte("and back\n")); err != nil {
		t.Error(err)
	}
	streams.In.Close()
	if _, err := s.CloseIO(ctx, &task.CloseIORequest{ID: "c1", Stdin: true}); err != nil {
		t.Error(err)
	}
	exit, err := s.Wait(ctx, &task.WaitRequest{ID: "c1"})
	if err != nil || exit.ExitStatus != 7 {
		t.Errorf("init: exit %v, error %v", exit, err)
	}
	if err := streams.Drained(ctx); err != nil {
		t.Error(err)
	}
	if got, want := streams.Out.String(), "hello\nand back\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
	if _, err := s.Delete(ctx, &task.DeleteRequest{ID: "c1"}); err != nil {
		t.Error(err)
	}
	if _, err := s.Events.Wait(ctx, client.Deletes("c1", "")); err != nil {
		t.Error(err)
	}
	deleted, err := s.End(ctx)
	// Upstream 1.6 always has something to say on standard error.
	if !errors.Is(err, client.ErrWarning) || deleted.ExitStatus != 128+uint32(syscall.SIGKILL) {
		t.Errorf("end: %v, error %v", deleted, err)
	}
	order.Verify(t, s.Events.All())
}

// execExits runs an exec process that exits with the given status, and deletes it.
func execExits(t *testing.T, ctx context.Context, s *client.Session, id, exec string, status uint32) {
	t.Helper()
	spec, err := client.ExecSpec(client.BundleConfig{Args: []string{"sh", "-c", fmt.Sprint("exit ", status)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Exec(ctx, &task.ExecProcessRequest{ID: id, ExecID: exec, Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(ctx, &task.StartRequest{ID: id, ExecID: exec}); err != nil {
		t.Fatal(err)
	}
	exit, err := s.Wait(ctx, &task.WaitRequest{ID: id, ExecID: exec})
	if err != nil || exit.ExitStatus != status {
		t.Errorf("exec %s: exit %v, error %v", exec, exit, err)
	}
	if _, err := s.Delete(ctx, &task.DeleteRequest{ID: id, ExecID: exec}); err != nil {
		t.Error(err)
	}
}

func TestCrashKillsShimAndContainer(t *testing.T) {
	needRoot(t, upstream)
	ctx := deadline(t, 30*time.Second)
	s := launch(t, ctx, "crash", client.BundleConfig{Args: []string{"sleep", "1000"}})
	created, err := s.Create(ctx, &task.CreateTaskRequest{ID: "crash", Bundle: s.Config.Bundle})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(ctx, &task.StartRequest{ID: "crash"}); err != nil {
		t.Fatal(err)
	}
	response, warning, err := s.Crash(ctx)
	if err != nil || response.ExitStatus != 137 || response.Pid != created.Pid {
		t.Errorf("crash: %v, error %v, want pid %d and status 137; %s", response, err, created.Pid, warning)
	}
	for {
		err := syscall.Kill(int(created.Pid), 0)
		if errors.Is(err, syscall.ESRCH) {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the container's pid %d: %v, want that it is gone", created.Pid, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", s.Pid())); err == nil {
		t.Errorf("shim %d is still there", s.Pid())
	}
	order.Verify(t, s.Events.All(), order.EndsInMiddle)
}

func TestErrorsOfAShimHaveKinds(t *testing.T) {
	needRoot(t, upstream)
	ctx := deadline(t, 30*time.Second)
	s := launch(t, ctx, "kinds", client.BundleConfig{Args: []string{"true"}})

	_, err := s.State(ctx, &task.StateRequest{ID: "kinds"})
	if !errors.Is(err, errdefs.ErrNotFound) || status.Code(err) != codes.NotFound {
		t.Errorf("State before Create: error %v, code %v, want not found", err, status.Code(err))
	}
	if got, want := err.Error(), "container not created: not found"; got != want {
		t.Errorf("message is %q, want the shim's own words %q", got, want)
	}
	_, err = s.V2().State(ctx, &taskv2.StateRequest{ID: "kinds"})
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("State of version 2: error %v, want not found", err)
	}
	// A task that is never started: upstream's delete action fails without one.
	if _, err := s.Create(ctx, &task.CreateTaskRequest{ID: "kinds", Bundle: s.Config.Bundle}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(ctx, &task.DeleteRequest{ID: "kinds"}); err != nil {
		t.Error(err)
	}
	if _, err := s.End(ctx); !errors.Is(err, client.ErrWarning) {
		t.Errorf("end: %v", err)
	}
	_, err = s.State(ctx, &task.StateRequest{ID: "kinds"})
	if !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("State after the end: error %v, want closed", err)
	}
}

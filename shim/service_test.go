package shim

import (
	"errors"
	"log/slog"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
)

func newTestService(t *testing.T) *Service {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	return NewService("test", NewEventLog("", "test", log), log)
}

func stopped(s *Service) bool {
	select {
	case <-s.Stopped():
		return true
	default:
		return false
	}
}

func TestShutdownWaitsForCreatesInFlight(t *testing.T) {
	s := newTestService(t)
	e, err := s.reserve("c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil || stopped(s) {
		t.Errorf("shutdown while a container is being created: %v, stopped %v", err, stopped(s))
	}
	s.settle("c1", e, nil)
	for range 2 {
		if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil || !stopped(s) {
			t.Errorf("shutdown: %v, stopped %v", err, stopped(s))
		}
	}
}

// TestEndingShimTakesNoMoreContainers: a start that found the socket between Shutdown and its
// removal sent its container to a shim that was about to end.
func TestEndingShimTakesNoMoreContainers(t *testing.T) {
	s := newTestService(t)
	if _, err := s.Connect(t.Context(), &task.ConnectRequest{}); err != nil {
		t.Errorf("connect: %v", err)
	}
	if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(t.Context(), &task.ConnectRequest{}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("connect to the ending shim: %v", err)
	}
	if _, err := s.Create(t.Context(), &task.CreateTaskRequest{ID: "c1", Bundle: t.TempDir()}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("create in the ending shim: %v", err)
	}
}

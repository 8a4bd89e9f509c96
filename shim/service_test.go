package shim

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
)

// newTestService returns a service that ends with the test.
func newTestService(t *testing.T) *Service {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s := NewService("test", NewEventLog("", "test", log), log, nil)
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.end()
	})
	return s
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
	e, err := s.reserve("c1", func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil || stopped(s) {
		t.Errorf("shutdown while a container is being created: %v, stopped %v", err, stopped(s))
	}
	s.settle("c1", e, nil)
	for range 2 {
		if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil || !stopped(s) {
			t.Errorf("shutdown: %v, stopped %v", err, stopped(s))
		}
	}
}

// TestShutdownIsRememberedWhileTheLastContainerGoes: a manager that had given up on a create asked
// once, too early, and the shim stayed for ever.
func TestShutdownIsRememberedWhileTheLastContainerGoes(t *testing.T) {
	for name, then := range map[string]struct {
		do   func(s *Service, e *entry)
		ends bool
	}{
		"create undone":     {func(s *Service, e *entry) { s.settle("c1", e, nil) }, true},
		"deleted":           {func(s *Service, e *entry) { s.forget("c1") }, true},
		"delete refused":    {func(s *Service, e *entry) { s.keep("c1", true); s.forget("c1") }, false},
		"delete failed":     {func(s *Service, e *entry) { s.keep("c1", false); s.forget("c1") }, true},
		"another one comes": {func(s *Service, e *entry) { s.mustReserve(t, "c2"); s.forget("c1"); s.forget("c2") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			undone := 0
			e, err := s.reserve("c1", func() { undone++ })
			if err != nil {
				t.Fatal(err)
			}
			s.unwant("c1")
			if undone != 1 {
				t.Errorf("the create was undone %d times", undone)
			}
			if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil || stopped(s) {
				t.Errorf("shutdown while the container goes: %v, stopped %v", err, stopped(s))
			}
			then.do(s, e)
			if stopped(s) != then.ends {
				t.Errorf("stopped %v, want %v", stopped(s), then.ends)
			}
		})
	}
}

func (s *Service) mustReserve(t *testing.T, id string) {
	t.Helper()
	if _, err := s.reserve(id, func() {}); err != nil {
		t.Fatal(err)
	}
}

// TestEndingShimTakesNoMoreContainers: a start that found the socket between Shutdown and its
// removal sent its container to a shim that was about to end.
func TestEndingShimTakesNoMoreContainers(t *testing.T) {
	s := newTestService(t)
	if _, err := s.Connect(t.Context(), &api.ConnectRequest{}); err != nil {
		t.Errorf("connect: %v", err)
	}
	if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(t.Context(), &api.ConnectRequest{}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("connect to the ending shim: %v", err)
	}
	if _, err := s.Create(t.Context(), &api.CreateTaskRequest{ID: "c1", Bundle: t.TempDir()}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("create in the ending shim: %v", err)
	}
}

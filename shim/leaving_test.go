package shim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"holdfast/internal/api"
)

// A start has told the manager that the container is to be created here; then the pod's last
// container goes, and the manager asks to shut down (contract T58).
func TestShutdownWaitsForAContainerThatIsComing(t *testing.T) {
	s := newTestService(t)
	s.mustReserve(t, "c1")
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{joinKey: []string{"c2"}})
	for range 2 {
		if _, err := s.Connect(ctx, &api.ConnectRequest{ID: "c2"}); err != nil {
			t.Fatal(err)
		}
	}
	s.forget("c1")
	if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil || stopped(s) {
		t.Errorf("shutdown before the container came: %v, stopped %v", err, stopped(s))
	}
	s.mustReserve(t, "c2")
	s.forget("c2")
	if stopped(s) {
		t.Error("it stopped without having been asked since the container came")
	}
	if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil || !stopped(s) {
		t.Errorf("shutdown: %v, stopped %v", err, stopped(s))
	}
	if _, err := s.Connect(ctx, &api.ConnectRequest{ID: "c3"}); err == nil {
		t.Error("a start has found a shim that ends")
	}
}

// One that never comes does not keep the shim.
func TestShutdownWaitsNotForEver(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	t.Parallel()
	s := newTestService(t)
	s.expect("c1")
	if _, err := s.Shutdown(t.Context(), &api.ShutdownRequest{}); err != nil || stopped(s) {
		t.Errorf("shutdown: %v, stopped %v", err, stopped(s))
	}
	select {
	case <-s.Stopped():
	case <-time.After(joinTime + 5*time.Second):
		t.Error("it does not stop")
	}
}

// The shim ends by itself when there is neither container, nor client, nor bundle; never else.
func TestForgottenShimEnds(t *testing.T) {
	const grace = 10 * time.Millisecond
	for name, row := range map[string]struct {
		keep func(t *testing.T, s *Service, bundle string) // what keeps the shim; nil: nothing does
		end  func(s *Service, bundle string)               // of what keeps it
	}{
		"nothing": {},
		"container": {
			func(t *testing.T, s *Service, _ string) { s.mustReserve(t, "c1") },
			func(s *Service, _ string) { s.forget("c1") },
		},
		"failed create": {
			func(t *testing.T, s *Service, _ string) { s.mustReserve(t, "c1") },
			func(s *Service, _ string) { s.settle("c1", s.containers["c1"], nil) },
		},
		"client": {
			func(_ *testing.T, s *Service, _ string) { s.arrive(); s.arrive(); s.depart() },
			func(s *Service, _ string) { s.depart() },
		},
		"container that is coming": {
			func(_ *testing.T, s *Service, _ string) { s.expect("c1") },
			func(s *Service, _ string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.unexpect("c1")
				s.mindVacancy()
			},
		},
		"its first bundle": {
			func(t *testing.T, _ *Service, bundle string) { mkdir(t, bundle) },
			func(_ *Service, bundle string) { os.Remove(bundle) },
		},
		"another bundle": {
			func(t *testing.T, s *Service, bundle string) { mkdir(t, bundle+"2"); s.Inhabit(bundle + "2") },
			func(_ *Service, bundle string) { os.Remove(bundle + "2") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			s.grace = grace
			bundle := filepath.Join(t.TempDir(), "bundle")
			if row.keep != nil {
				row.keep(t, s, bundle)
			}
			s.Inhabit(bundle)
			if row.keep != nil {
				time.Sleep(20 * grace)
				if stopped(s) {
					t.Fatal("it ended though it was needed")
				}
				row.end(s, bundle)
			}
			select {
			case <-s.Stopped():
			case <-time.After(10 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestBundlesThatHaveGoneAreForgotten(t *testing.T) {
	s := newTestService(t)
	there := t.TempDir()
	s.Inhabit(there)
	for i := range 10 * manyBundles {
		s.Inhabit(filepath.Join(there, "gone", string(rune('a'+i))))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, kept := s.bundles[there]; !kept || len(s.bundles) > manyBundles+1 {
		t.Errorf("%d bundles are remembered, the one that is there: %v", len(s.bundles), kept)
	}
}

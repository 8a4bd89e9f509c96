package shim

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"holdfast/internal/api"
	"holdfast/process"
)

const (
	// graceTime is how long a daemon without containers, clients and bundles waits for somebody to
	// need it; if there are bundles it looks again after times that grow up to longestGrace.
	graceTime    = 10 * time.Second
	longestGrace = time.Minute
	// joinTime is how long a container whose start has found us has to be created.
	joinTime = 10 * time.Second
	// firstRepeat is how long after it has failed a deletion is repeated that nobody waits for; the times
	// grow up to longestGrace.
	firstRepeat = time.Second
	// manyBundles is how many bundles are remembered before those that have gone are forgotten.
	manyBundles = 64
)

// Shutdown ends the shim, unless it has containers or is about to have one. Those whose deletion is
// under way do not count: the shim ends after it, since its caller may have given up and nobody
// would ask again. Shutdown answers at once and never fails: containerd 2.4 fails the deletion of
// the task otherwise (contract T63c).
func (s *Service) Shutdown(context.Context, *api.ShutdownRequest) (*api.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.containers {
		if !e.unwanted {
			return &api.Empty{}, nil
		}
	}
	s.leaving = true
	s.stopIfEmpty()
	if len(s.containers) > 0 && !s.persisting {
		s.persisting = true
		go s.persist()
	}
	return &api.Empty{}, nil
}

// persist sees to it that the containers are deleted for which nobody asks any more, since we have been
// told to end: a deletion that fails is repeated. It is a goroutine that ends with the last of them, or when
// the shim is to stay.
func (s *Service) persist() {
	for pause := firstRepeat; ; pause = min(2*pause, longestGrace) {
		for _, c := range s.left() {
			if runs(c) {
				s.keep(c.ID(), true) // its deletion was refused when its caller had gone
			} else if _, _, err := c.Delete(context.Background(), ""); err != nil {
				s.log.Warn("task not deleted, trying again", "task", c.ID(), "in", pause, "err", err)
			}
		}
		select {
		case <-time.After(pause):
		case <-s.stop:
			return
		}
		s.mu.Lock()
		s.persisting = s.leaving && len(s.containers) > 0
		more := s.persisting
		s.mu.Unlock()
		if !more {
			return
		}
	}
}

// left returns the containers that are there although we have been told to end.
func (s *Service) left() (left []*process.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.containers {
		if s.leaving && e.container != nil {
			left = append(left, e.container)
		}
	}
	return left
}

// stopIfEmpty ends the shim if it was asked to end and the last container has gone. mu is held.
func (s *Service) stopIfEmpty() {
	if s.leaving && s.isVacant() {
		s.end()
	}
	s.mindVacancy()
}

// isVacant tells whether no container is there, and none is coming. mu is held.
func (s *Service) isVacant() bool { return len(s.containers) == 0 && len(s.expected) == 0 }

// end ends the shim. mu is held.
func (s *Service) end() {
	if !s.stopping {
		s.stopping = true
		close(s.stop)
	}
}

// expect keeps the shim from ending until the container is created, but not for long: its start has
// told the manager that we are there (contract T58).
func (s *Service) expect(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[id] != nil {
		return
	}
	s.unexpect(id)
	var t *time.Timer
	t = time.AfterFunc(joinTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.expected[id] == t {
			delete(s.expected, id)
			s.stopIfEmpty()
		}
	})
	s.expected[id] = t
}

// unexpect is called when the container comes. mu is held.
func (s *Service) unexpect(id string) {
	if t := s.expected[id]; t != nil {
		t.Stop()
		delete(s.expected, id)
	}
}

// arrive tells that a client is connected, one more; depart has to follow.
func (s *Service) arrive() {
	s.presence.Arrive()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients++
}

// depart tells that a client has gone.
func (s *Service) depart() {
	s.presence.Leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
	s.mindVacancy()
}

// Inhabit tells of a bundle that the shim is for: as long as it is there the manager knows of us,
// even if it is away.
func (s *Service) Inhabit(bundle string) {
	s.mu.Lock()
	s.bundles[bundle] = struct{}{}
	many := len(s.bundles) > manyBundles
	s.mindVacancy()
	s.mu.Unlock()
	if many {
		s.forgetBundles()
	}
}

// forgetBundles forgets those that are not there any more. The file system is asked without the lock.
func (s *Service) forgetBundles() {
	s.mu.Lock()
	paths := slices.Collect(maps.Keys(s.bundles))
	s.mu.Unlock()
	gone := slices.DeleteFunc(paths, func(path string) bool { return !isGone(path) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range gone {
		delete(s.bundles, path)
	}
}

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// mindVacancy has the shim looked after while it seems to be forgotten. mu is held.
func (s *Service) mindVacancy() {
	if !s.minded && s.isForgotten() {
		s.minded = true
		go s.mind()
	}
}

// isForgotten tells whether nobody is there who could want something. mu is held.
func (s *Service) isForgotten() bool {
	return s.isVacant() && s.clients == 0 && !s.stopping
}

// mind ends the shim once it has no container, no client and no bundle: a manager was killed or has
// forgotten to ask. It is a goroutine that ends when the shim is not forgotten, or has ended.
func (s *Service) mind() {
	for pause := s.grace; ; pause = min(2*pause, longestGrace) {
		select {
		case <-time.After(pause):
		case <-s.stop:
			return
		}
		if !s.stillForgotten() {
			return
		}
	}
}

// stillForgotten tells whether to look again; it ends the shim if nobody is left to come back.
func (s *Service) stillForgotten() bool {
	s.forgetBundles()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isForgotten() {
		s.minded = false
		return false
	}
	if len(s.bundles) > 0 {
		return true
	}
	s.log.Info("nobody needs this shim any more: no container, no client, no bundle")
	s.end()
	return false
}

package process

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/reaper"
	"holdfast/runc"
)

// stuck is a runtime whose commands hang until they are killed.
type stuck struct{ *fakeRuntime }

func (stuck) hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// stuckStart is one whose start hangs.
type stuckStart struct{ stuck }

func (s stuckStart) Start(ctx context.Context) error { return s.hang(ctx) }

// stuckRestore is one whose restore hangs.
type stuckRestore struct{ stuck }

func (s stuckRestore) Restore(ctx context.Context, _ runc.RestoreConfig) (*reaper.Child, *os.File, error) {
	return nil, nil, s.hang(ctx)
}

// stuckLater is one that hangs once the init process has been started.
type stuckLater struct{ stuck }

func (s stuckLater) Pause(ctx context.Context) error            { return s.hang(ctx) }
func (s stuckLater) Resume(ctx context.Context) error           { return s.hang(ctx) }
func (s stuckLater) Update(ctx context.Context, _ []byte) error { return s.hang(ctx) }
func (s stuckLater) Checkpoint(ctx context.Context, _ runc.CheckpointConfig) error {
	return s.hang(ctx)
}
func (s stuckLater) Exec(ctx context.Context, _ runc.ExecConfig) (*reaper.Child, *os.File, error) {
	return nil, nil, s.hang(ctx)
}

// A hook that hung for ever, after the init process had died, kept its exit from everybody.
func TestExitIsToldThoughTheStartHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := newFixture(t, func(c *Config) { c.Runtime = stuckStart{stuck{c.Runtime.(*fakeRuntime)}} })
		if err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() { _, err := f.Start(t.Context(), ""); started <- err }()
		select {
		case err := <-started:
			t.Fatalf("the start was cut short: %v", err)
		case <-time.After(time.Hour): // hooks may take as long as they like
		}
		f.runtime.die("", 7)
		if exit, err := f.Wait(t.Context(), ""); err != nil || exit.Status != 7 {
			t.Errorf("exit %+v, %v", exit, err)
		}
		if err := <-started; err == nil {
			t.Error("started")
		}
		if got := f.topics(t); got != "create exit" {
			t.Errorf("events %q", got)
		}
	})
}

// The exit of a task waits for what is being done to it, so that events are in order. A runtime that
// hangs over that is killed soon, when there is nobody left to do it to.
func TestExitIsToldThoughTheRuntimeHangs(t *testing.T) {
	for name, c := range map[string]struct {
		call  func(context.Context, *fixture) error
		limit time.Duration
	}{
		"pause":  {func(ctx context.Context, f *fixture) error { return f.Pause(ctx) }, deadLimit},
		"update": {func(ctx context.Context, f *fixture) error { return f.Update(ctx, nil) }, deadLimit},
		"exec":   {func(ctx context.Context, f *fixture) error { _, err := f.Start(ctx, "e1"); return err }, deadLimit},
		"checkpoint": {
			func(ctx context.Context, f *fixture) error { return f.Checkpoint(ctx, runc.CheckpointConfig{}) },
			limits[Exit],
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := newFixture(t, func(c *Config) { c.Runtime = stuckLater{stuck{c.Runtime.(*fakeRuntime)}} })
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.Start(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				f.addExec(t, "e1")
				failed := make(chan error, 1)
				go func() { failed <- c.call(t.Context(), f) }()
				synctest.Wait()
				died := time.Now()
				f.runtime.die("", 7)
				if exit, err := f.Wait(t.Context(), ""); err != nil || exit.Status != 7 {
					t.Errorf("exit %+v, %v", exit, err)
				}
				if took := time.Since(died); took != c.limit {
					t.Errorf("told after %v, want %v", took, c.limit)
				}
				if err := <-failed; err == nil {
					t.Error("it succeeded")
				}
				if got := f.topics(t); got != "create start exec-added exit" {
					t.Errorf("events %q", got)
				}
			})
		})
	}
}

// A restore may take long, and there is no process to kill: who does not want it any more deletes the task.
func TestDeleteCutsARestoreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := newFixture(t, func(c *Config) {
			c.Checkpoint, c.Runtime = "/image", stuckRestore{stuck{c.Runtime.(*fakeRuntime)}}
		})
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() { _, err := f.Start(t.Context(), ""); failed <- err }()
		synctest.Wait()
		began := time.Now()
		if _, _, err := f.Delete(t.Context(), ""); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the deletion has waited %v", took)
		}
		if err := <-failed; err == nil {
			t.Error("restored")
		}
		if got := f.topics(t); got != "create delete" {
			t.Errorf("events %q", got)
		}
	})
}

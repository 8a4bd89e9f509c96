package process

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// stuckStart is a runtime whose start hangs until it is killed.
type stuckStart struct{ *fakeRuntime }

func (stuckStart) Start(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// A hook that hung for ever, after the init process had died, kept its exit from everybody.
func TestExitIsToldThoughTheStartHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := newFixture(t, func(c *Config) { c.Runtime = stuckStart{c.Runtime.(*fakeRuntime)} })
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

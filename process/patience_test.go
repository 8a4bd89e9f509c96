package process

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/reaper"
)

// Who waits for long says for whom, once: an operation for another one, and an exit for an exec.
func TestWhoWaitsForLongSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		f, err := newFixture(t, func(c *Config) {
			c.Runtime = stuckLater{stuck{c.Runtime.(*fakeRuntime)}}
			c.Log = slog.New(slog.NewTextHandler(&said, nil))
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Start(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 2)
		go func() { failed <- f.Update(t.Context(), nil) }()
		synctest.Wait()
		go func() { failed <- f.Pause(t.Context()) }()
		time.Sleep(5 * patience)
		synctest.Wait()
		const waits = "an operation waits for another one"
		if n := strings.Count(said.String(), waits); n != 1 || !strings.Contains(said.String(), "op=pause for=update") {
			t.Errorf("reported %d times: %s", n, &said)
		}
		for range 2 {
			if err := <-failed; err == nil {
				t.Error("a command that hangs has succeeded")
			}
		}

		// An exec that the end of the container does not end.
		f.addExec(t, "e1")
		child, die := reaper.Fake(int(fakePids.Add(1)))
		e := f.execs["e1"]
		e.born(child)
		e.set(Running)
		f.gate.enter()
		f.runtime.die("", 0)
		time.Sleep(5 * patience)
		synctest.Wait()
		const exit = "the exit of the task waits for an exec"
		if n := strings.Count(said.String(), exit); n != 1 || !strings.Contains(said.String(), "exec=e1") {
			t.Errorf("reported %d times: %s", n, &said)
		}
		die(reaper.Exit{})
		f.gate.leave()
		if _, err := f.Wait(t.Context(), ""); err != nil {
			t.Error(err)
		}
	})
}

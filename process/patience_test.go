package process

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/facts"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
)

// Who waits for long says for whom, once: an operation for another one, and an exit for an exec.
func TestWhoWaitsForLongSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		f, err := newFixture(t, func(c *Config) {
			c.Runtime = stuckLater{stuck{c.Runtime.(*fakeRuntime)}}
			c.Steps = new(recorder.Recorder)
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
		info, err := f.State("")
		if err != nil || info.Turn.Op != Update || time.Since(info.Turn.Since) != 5*patience {
			t.Errorf("%v has the turn since %v: %v", info.Turn.Op, info.Turn.Since, err)
		}
		const waits = "an operation waits for another one"
		if n := strings.Count(said.String(), waits); n != 1 || !strings.Contains(said.String(), "op=pause for=update") {
			t.Errorf("reported %d times: %s", n, &said)
		}
		for range 2 {
			if err := <-failed; err == nil {
				t.Error("a command that hangs has succeeded")
			}
		}
		if info, err := f.State(""); err != nil || info.Turn != (Turn{}) {
			t.Errorf("the turn was not given back: %+v, %v", info.Turn, err)
		}
		if waits := waitsOf(f.cfg.Steps.Steps()); len(waits) != 1 || waits[0].What != "pause" || waits[0].Took < 5*patience {
			t.Errorf("remembered %+v", waits)
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

// waitsOf returns the waits among what has been recorded.
func waitsOf(steps []facts.Step) []facts.Step {
	return slices.DeleteFunc(steps, func(s facts.Step) bool { return s.Op != "wait" })
}

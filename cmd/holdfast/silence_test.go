package main

import (
	"crypto/rand"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/node"
)

// TestStoppedShimIsToldOf stops a shim: no verb may wait for it for ever.
func TestStoppedShimIsToldOf(t *testing.T) {
	id := detached(t, "runc")
	s, err := node.Lookup(t.Context(), node.Config{}, "", id)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Kill(s.Pid, unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	for _, verb := range []string{"why", "stacks", "state"} {
		began := time.Now()
		r := runHoldfast(t, "", verb, id)
		if r.status != exitFailed || !strings.Contains(r.stderr, "it does not answer; it is pid ") || !strings.Contains(r.stderr, "in state T") {
			t.Errorf("%s: %+v", verb, r)
		}
		if took := time.Since(began); took > answerLimit+runLimit/4 {
			t.Errorf("%s took %v", verb, took)
		}
	}
}

// TestIDsAreNotUsedTwice asks for a second container of the same id, which nobody could name.
func TestIDsAreNotUsedTwice(t *testing.T) {
	id := detached(t, "runc")
	for _, verb := range []string{"run", "create"} {
		r := runHoldfast(t, "", verb, "--id", id)
		if r.status != exitFailed || !strings.Contains(r.stderr, "cannot use the id "+id+": because the container of the shim with pid ") {
			t.Errorf("%s: %+v", verb, r)
		}
	}
	if r := runHoldfast(t, "", "shutdown", id); r.status != exitFailed || !strings.Contains(r.stderr, "because it has container "+id+"; kill and delete that first") {
		t.Errorf("shutdown: %+v", r)
	}
	if r := runHoldfast(t, "", "pause", id); r.status != 0 {
		t.Errorf("pause: %+v", r)
	}
	if r := runHoldfast(t, "", "why", id); !strings.Contains(r.stdout, "its process is paused; holdfast resume lets it go on") {
		t.Errorf("why: %+v", r)
	}
	if r := runHoldfast(t, "", "run", "--id", "free-"+rand.Text()); r.status != 7 {
		t.Errorf("run with an id of its own: %+v", r)
	}
}

func TestLimitsAreLimits(t *testing.T) {
	for _, l := range []limits{
		{memory: -7}, {pids: -2}, {cpus: -5}, {cpus: math.NaN()}, {cpus: 1e9}, {cpus: math.Inf(1)},
	} {
		if _, err := l.resources(); err == nil {
			t.Errorf("%+v is taken for limits", l)
		}
	}
	for _, l := range []limits{{memory: -1}, {memory: 1 << 20}, {pids: -1}, {cpus: -1}, {cpus: 0.5}} {
		if _, err := l.resources(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if _, err := (limits{}).resources(); err == nil {
		t.Error("no limit is a change")
	}
}

package soak

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// An operation is what a client may ask for.
type operation string

const (
	create   operation = "create"
	start    operation = "start"
	addExec  operation = "exec"
	kill     operation = "kill"
	wait     operation = "wait"
	state    operation = "state"
	pids     operation = "pids"
	stats    operation = "stats"
	pause    operation = "pause"
	resume   operation = "resume"
	resize   operation = "resize"
	closeIO  operation = "closeio"
	remove   operation = "delete"
	connect  operation = "connect"
	shutdown operation = "shutdown"
)

// shares says how often each is chosen.
var shares = []struct {
	op    operation
	share int
}{
	{create, 8}, {start, 14}, {addExec, 12}, {kill, 12}, {wait, 6}, {state, 8}, {pids, 4}, {stats, 3},
	{pause, 3}, {resume, 6}, {resize, 3}, {closeIO, 3}, {remove, 14}, {connect, 1}, {shutdown, 1},
}

// A choice is one step of a client. It is made without looking at anything, so that it is the same
// in every run; its numbers select from what there is when the step is done.
type choice struct {
	op              operation
	pod, slot, exec int
	detail, more    int
}

// source returns the random numbers of one of those who choose.
func source(seed uint64, who int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(who))) }

// choose makes the next choice.
func choose(r *rand.Rand) choice {
	return choice{
		op: chooseOperation(r), pod: r.IntN(pods), slot: r.IntN(slots), exec: r.IntN(1 << 16),
		detail: r.IntN(1 << 16), more: r.IntN(1 << 16),
	}
}

func chooseOperation(r *rand.Rand) operation {
	all := 0
	for _, s := range shares {
		all += s.share
	}
	n := r.IntN(all)
	for _, s := range shares {
		if n -= s.share; n < 0 {
			return s.op
		}
	}
	panic("a number beyond the sum of all shares")
}

// TestChoicesFollowFromTheSeed is what makes a run worth repeating.
func TestChoicesFollowFromTheSeed(t *testing.T) {
	choices := func(seed uint64, who int) []choice {
		r := source(seed, who)
		var all []choice
		for range 100 {
			all = append(all, choose(r))
		}
		return all
	}
	first := choices(1, 0)
	if !slices.Equal(first, choices(1, 0)) {
		t.Error("the same client chooses differently with the same seed")
	}
	if slices.Equal(first, choices(2, 0)) || slices.Equal(first, choices(1, 1)) {
		t.Error("another seed, or another client, makes no difference")
	}
}

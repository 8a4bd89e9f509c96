package recorder

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"holdfast/internal/facts"
)

func TestTheLastStepsAreRemembered(t *testing.T) {
	for name, row := range map[string]struct{ steps, want int }{
		"none": {0, 0}, "one": {1, 1}, "full": {size, size}, "one more": {size + 1, size}, "many": {10*size + 7, size},
	} {
		t.Run(name, func(t *testing.T) {
			var r Recorder
			for i := range row.steps {
				r.Reach(StartRan, fmt.Sprint("c", i), "e1")
			}
			lines := strings.Split(strings.TrimSuffix(r.String(), "\n"), "\n")
			if row.want == 0 {
				lines = lines[:0]
			}
			if len(lines) != row.want {
				t.Fatalf("got %d steps, want %d", len(lines), row.want)
			}
			for i, line := range lines {
				want := fmt.Sprintf(" c%d/e1 start-2 runtime has started", row.steps-row.want+i)
				if !strings.HasSuffix(line, want) {
					t.Fatalf("line %d is %q, want the end %q", i, line, want)
				}
			}
		})
	}
}

func TestNobodyRecords(t *testing.T) {
	var r *Recorder
	r.Reach(CreateBegun, "c1", "")
	if got := r.String(); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestStepsMayComeTogether(t *testing.T) {
	var r Recorder
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range size {
				r.Reach(ExitReaped, "c1", "")
				_ = r.String()
			}
		})
	}
	all.Wait()
	if got := strings.Count(r.String(), "exit-1"); got != size {
		t.Errorf("got %d steps, want %d", got, size)
	}
}

// TestSpansHaveTheirLength checks that spans are kept among the steps, with when they began.
func TestSpansHaveTheirLength(t *testing.T) {
	var r Recorder
	r.Reach(StartBegun, "c1", "")
	began := time.Now().Add(-time.Second)
	r.Passed(Span{Kind: Command, What: "start", Task: "c1", Began: began, Failed: true})
	r.Passed(Span{Kind: Turn, What: "kill", Task: "c1", Exec: "e1", Began: began})
	steps := r.Steps()
	if len(steps) != 3 || steps[0].Took != 0 || steps[0].N != 1 {
		t.Fatalf("%+v", steps)
	}
	for i, want := range []facts.Step{
		{ID: "c1", Op: "runtime", What: "start", Failed: true}, {ID: "c1", Exec: "e1", Op: "wait", What: "kill"},
	} {
		got := steps[i+1]
		want.At, want.Took = got.At, got.Took
		if got != want || !got.At.Equal(time.Unix(0, began.UnixNano())) || got.Took < time.Second || got.Took > time.Minute {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	for _, word := range []string{" start-1 turn taken\n", " c1 runtime start failed after 1", " c1/e1 wait kill took 1"} {
		if !strings.Contains(r.String(), word) {
			t.Errorf("no %q: %s", word, r.String())
		}
	}
}

// Each step has a name of its own, and they are counted without a gap.
func TestStepsAreNumbered(t *testing.T) {
	last := map[string]int{}
	for step, label := range Labels() {
		if label.Op == "" || label.What == "" || label.N != last[label.Op]+1 {
			t.Errorf("step %d is %+v, after %d", step, label, last[label.Op])
		}
		last[label.Op] = label.N
	}
}

// Gather changes nothing that can be seen, and lets go of the memory that the names came in.
func TestGatherMovesNames(t *testing.T) {
	var r Recorder
	request := strings.Repeat("x", 1<<10) + "c1" + "e1"
	r.Reach(StartBegun, request[1<<10:][:2], "")
	for range size + 3 {
		r.Reach(StartRan, request[1<<10:][:2], request[1<<10:][2:])
	}
	before := r.Steps()
	r.Gather()
	after := r.Steps()
	if !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
	first, last := after[0], after[len(after)-1]
	for what, pair := range map[string][2]string{
		"the container's is the request's": {request[1<<10:][:2], first.ID}, "the exec's is the request's": {request[1<<10:][2:], first.Exec},
	} {
		if unsafe.StringData(pair[0]) == unsafe.StringData(pair[1]) {
			t.Errorf("the memory of %s", what)
		}
	}
	if unsafe.StringData(first.ID) != unsafe.StringData(last.ID) {
		t.Error("the same name is there twice")
	}
	(*Recorder)(nil).Gather()
}

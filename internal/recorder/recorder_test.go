package recorder

import (
	"fmt"
	"strings"
	"sync"
	"testing"
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

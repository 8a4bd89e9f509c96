package process

import (
	"fmt"
	"sync"
	"testing"

	"holdfast/internal/api"
)

// An exec that is added while the init process ends is either told of before that end, or refused:
// nobody expects to hear of another exec of a container that has exited.
func TestNoExecIsAddedAfterTheExit(t *testing.T) {
	for round := range 30 {
		f := mustStart(t)
		var all sync.WaitGroup
		for adder := range 3 {
			all.Go(func() {
				for i := 0; f.Container.Exec(ExecConfig{ID: fmt.Sprintf("e%d-%d", adder, i), Process: []byte("{}")}) == nil; i++ {
				}
			})
		}
		f.runtime.die("", 0)
		all.Wait()
		if _, err := f.Wait(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		exited := false
		for _, e := range f.events.all() {
			switch e := e.(type) {
			case *api.TaskExit:
				exited = true
			case *api.TaskExecAdded:
				if exited {
					t.Fatalf("round %d: %s was added after the exit", round, e.GetExecID())
				}
			}
		}
		if !exited {
			t.Fatal("no exit")
		}
	}
}

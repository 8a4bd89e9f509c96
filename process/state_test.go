package process

import (
	"errors"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

// clientOps are the operations that clients ask for.
var clientOps = []Op{Start, Exec, Pause, Resume, Update, Checkpoint, Kill, Resize, Delete}

// allowed is the matrix of contract 3.3, written by hand: what each state allows. Delete of a
// created container kills it first, so that it is deleted as a stopped one.
func TestTablesAllowWhatTheContractSays(t *testing.T) {
	for _, row := range []struct {
		name  string
		steps *table
		state State
		ops   []Op
	}{
		{"init", &initTable, Created, []Op{Start, Exec, Update, Kill, Resize}},
		{"init", &initTable, Running, []Op{Exec, Pause, Update, Checkpoint, Kill, Resize}},
		{"init", &initTable, Paused, []Op{Resume, Update, Checkpoint, Kill, Resize}},
		{"init", &initTable, Stopped, []Op{Delete}},
		{"init", &initTable, Deleted, nil},
		{"restore", &restoreTable, Created, []Op{Start, Resize, Delete}},
		{"restore", &restoreTable, Running, []Op{Exec, Pause, Update, Checkpoint, Kill, Resize}},
		{"restore", &restoreTable, Paused, []Op{Resume, Update, Checkpoint, Kill, Resize}},
		{"restore", &restoreTable, Stopped, []Op{Delete}},
		{"exec", &execTable, Created, []Op{Start, Resize, Delete}},
		{"exec", &execTable, Failed, []Op{Delete}},
		{"exec", &execTable, Running, []Op{Kill, Resize}},
		{"exec", &execTable, Stopped, []Op{Delete}},
		{"exec", &execTable, Deleted, nil},
	} {
		for _, op := range clientOps {
			got := row.steps[row.state][op].to != 0
			if want := slices.Contains(row.ops, op); got != want {
				t.Errorf("%s %s: %s allowed %v, want %v", row.name, row.state, op, got, want)
			}
		}
	}
}

func TestEveryStateLeadsToDeletedAndDeletedLeadsNowhere(t *testing.T) {
	for name, steps := range map[string]*table{"init": &initTable, "restore": &restoreTable, "exec": &execTable} {
		if steps[Deleted] != ([numOps]step{}) {
			t.Errorf("%s: deleted is not the end", name)
		}
		for s := range numStates {
			if steps[s] != ([numOps]step{}) && !reaches(steps, s, Deleted) {
				t.Errorf("%s: %s never leads to deleted", name, s)
			}
		}
	}
}

func reaches(steps *table, from, to State) bool {
	seen := map[State]bool{}
	todo := []State{from}
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		if s == to {
			return true
		}
		if seen[s] {
			continue
		}
		seen[s] = true
		for _, next := range steps[s] {
			if next.to != 0 {
				todo = append(todo, next.to)
			}
		}
	}
	return false
}

func TestRefusalsHaveTheWordsAndKindsThatClientsKnow(t *testing.T) {
	for _, row := range []struct {
		state State
		op    Op
		text  string
		kind  error
	}{
		{Running, Start, "cannot start a running process: task c1 is running: failed precondition", errdefs.ErrFailedPrecondition},
		{Stopped, Start, "cannot start a stopped process: task c1 is stopped; create a new one: failed precondition", errdefs.ErrFailedPrecondition},
		{Created, Pause, "cannot pause task in created state: task c1 is created; start it first: failed precondition", errdefs.ErrFailedPrecondition},
		{Stopped, Pause, "cannot pause a stopped container: task c1 is stopped: failed precondition", errdefs.ErrFailedPrecondition},
		{Created, Resume, "cannot resume task in created state: task c1 is created; start it first: failed precondition", errdefs.ErrFailedPrecondition},
		{Paused, Exec, "cannot exec in a paused state: task c1 is paused; resume it first: failed precondition", errdefs.ErrFailedPrecondition},
		{Stopped, Update, "cannot update a stopped container: task c1 is stopped: failed precondition", errdefs.ErrFailedPrecondition},
		{Running, Delete, "cannot delete a running process: task c1 is running; kill it first: failed precondition", errdefs.ErrFailedPrecondition},
		{Stopped, Kill, "process already finished: not found", errdefs.ErrNotFound},
	} {
		err := refuse("task c1", row.state, row.op)
		if err.Error() != row.text || !errors.Is(err, row.kind) {
			t.Errorf("%s in %s: %q", row.op, row.state, err)
		}
	}
}

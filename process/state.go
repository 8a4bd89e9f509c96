package process

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// State is where a process stands.
type State uint8

// The states. Pausing is only ever shown, while Pause holds the turn; Failed is an exec whose
// start failed for good, and is shown to clients as created (contract 3.3, 17).
const (
	Created State = iota + 1
	Running
	Pausing
	Paused
	Stopped
	Failed
	Deleted
	numStates
)

var stateNames = [numStates]string{
	Created: "created", Running: "running", Pausing: "pausing", Paused: "paused",
	Stopped: "stopped", Failed: "failed", Deleted: "deleted",
}

func (s State) String() string { return stateNames[s] }

// Op is something that is done to a process.
type Op uint8

// The operations. Exit and Abandon are done by lives, the others by clients.
const (
	Start Op = iota + 1
	Exec
	Pause
	Resume
	Update
	Checkpoint
	Kill
	Resize
	Delete
	Exit
	Abandon
	numOps
)

// step says where an operation leads. The zero step refuses.
type step struct {
	to   State // where success leads
	via  State // what State shows meanwhile; zero: no change
	fail State // where failure leads; zero: back to where it began
}

type table [numStates][numOps]step

// initTable is everything an init process can do.
var initTable = table{
	Created: {
		Start: {to: Running}, Exec: {to: Created}, Update: {to: Created}, Kill: {to: Created},
		Resize: {to: Created}, Exit: {to: Stopped},
	},
	Running: {
		Exec: {to: Running}, Pause: {to: Paused, via: Pausing}, Update: {to: Running},
		Checkpoint: {to: Running}, Kill: {to: Running}, Resize: {to: Running}, Exit: {to: Stopped},
	},
	Paused: {
		Resume: {to: Running}, Update: {to: Paused}, Checkpoint: {to: Paused}, Kill: {to: Paused},
		Resize: {to: Paused}, Exit: {to: Stopped},
	},
	Stopped: {Delete: {to: Deleted}},
}

// restoreTable is initTable for a task that is created from a checkpoint: it has no process
// before it is started, so it cannot run execs, has no limits to update and is deleted as it is.
var restoreTable = table{
	Created: {
		Start: {to: Running}, Resize: {to: Created}, Delete: {to: Deleted},
	},
	Running: initTable[Running],
	Paused:  initTable[Paused],
	Stopped: initTable[Stopped],
}

// execTable is everything an exec process can do. A start that fails is final: no exit is
// logged, since no start was, but waiters are freed.
var execTable = table{
	Created: {
		Start: {to: Running, fail: Failed}, Resize: {to: Created}, Delete: {to: Deleted},
		Abandon: {to: Failed},
	},
	Failed:  {Delete: {to: Deleted}},
	Running: {Kill: {to: Running}, Resize: {to: Running}, Exit: {to: Stopped}},
	Stopped: {Delete: {to: Deleted}},
}

// phrases are the words with which containerd's own shim refuses; clients know them
// (contract 3.3). The first %s is the state.
var phrases = [numOps]string{
	Start:      "cannot start a %s process",
	Exec:       "cannot exec in a %s state",
	Pause:      "cannot pause a %s container",
	Resume:     "cannot resume a %s container",
	Update:     "cannot update a %s container",
	Checkpoint: "cannot checkpoint a %s container",
	Kill:       "cannot kill a %s process",
	Resize:     "cannot resize a %s container",
	Delete:     "cannot delete a %s process",
}

// remedies tell what to do instead.
var remedies = [numStates][numOps]string{
	Created: {
		Pause: "start it first", Resume: "start it first", Checkpoint: "start it first",
		Kill: "start it first", Exec: "start it first", Update: "start it first", Delete: "kill it first",
	},
	Running: {Delete: "kill it first", Resume: "it needs no resume"},
	Pausing: {Delete: "resume and kill it first", Exec: "resume it first"},
	Paused:  {Start: "resume it", Exec: "resume it first", Delete: "kill it first"},
	Stopped: {Start: "create a new one", Exec: "create a new task"},
	Failed:  {Start: "delete it and add another exec"},
}

// refuse says why op is not allowed in state.
func refuse(what string, state State, op Op) error {
	if op == Kill && (state == Stopped || state == Deleted) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	phrase := fmt.Sprintf(phrases[op], state)
	switch {
	case state == Created && (op == Pause || op == Resume):
		phrase = fmt.Sprintf("cannot %s task in created state", op)
	case state == Created && op == Checkpoint:
		phrase = "cannot checkpoint a task in created state"
	case state == Running && op == Resume:
		phrase = "cannot resume a running process"
	}
	remedy := remedies[state][op]
	if remedy != "" {
		remedy = "; " + remedy
	}
	return fmt.Errorf("%s: %s is %s%s: %w", phrase, what, state, remedy, errdefs.ErrFailedPrecondition)
}

var opNames = [numOps]string{
	Start: "start", Exec: "exec", Pause: "pause", Resume: "resume", Update: "update",
	Checkpoint: "checkpoint", Kill: "kill", Resize: "resize", Delete: "delete", Exit: "exit",
	Abandon: "abandon",
}

func (op Op) String() string { return opNames[op] }

package recorder

import "strconv"

// Step is a point that an operation has reached.
type Step uint8

// The steps, of one operation after the other, in the order in which it reaches them.
const (
	CreateBegun Step = iota
	CreateMounted
	CreateOpened
	CreateRan
	CreateConnected
	CreateLogged
	StartBegun
	StartRan
	StartLogged
	ExecBegun
	ExecOpened
	ExecRan
	ExecLogged
	ExitReaped
	ExitRecorded
	ExitAlone
	ExitLogged
	ExecExitReaped
	ExecExitRecorded
	ExecExitLogged
	DeleteBegun
	DeleteRan
	DeleteUnmounted
	DeleteLogged
	ShutdownBegun
	ShutdownHidden
	ShutdownServed
	ShutdownFlushed
	numSteps
)

// Kind is what a span is.
type Kind uint8

// The kinds of spans.
const (
	Command Kind = iota + 1 // of the runtime; What is the verb
	Turn                    // a wait for another operation on the same process; What is the one that waited
	numKinds
)

var kinds = [numKinds]string{Command: "runtime", Turn: "wait"}

// Label is what a step is called: the operation it belongs to, counted from 1 within that, and what
// has just been done.
type Label struct {
	Op   string
	N    int
	What string
}

// Name is how HOLDFAST_FAILPOINTS and the tests call a step: create-1.
func (l Label) Name() string { return l.Op + "-" + strconv.Itoa(l.N) }

var labels = [numSteps]Label{
	CreateBegun:      {"create", 1, "request accepted, options saved"},
	CreateMounted:    {"create", 2, "rootfs mounted"},
	CreateOpened:     {"create", 3, "stdio opened"},
	CreateRan:        {"create", 4, "runtime has created"},
	CreateConnected:  {"create", 5, "stdio connected, memory watched"},
	CreateLogged:     {"create", 6, "event logged"},
	StartBegun:       {"start", 1, "turn taken"},
	StartRan:         {"start", 2, "runtime has started"},
	StartLogged:      {"start", 3, "event logged"},
	ExecBegun:        {"exec", 1, "turn taken"},
	ExecOpened:       {"exec", 2, "stdio opened"},
	ExecRan:          {"exec", 3, "runtime has run it"},
	ExecLogged:       {"exec", 4, "event logged"},
	ExitReaped:       {"exit", 1, "init process reaped"},
	ExitRecorded:     {"exit", 2, "record written"},
	ExitAlone:        {"exit", 3, "execs gone"},
	ExitLogged:       {"exit", 4, "event logged"},
	ExecExitReaped:   {"execexit", 1, "exec process reaped"},
	ExecExitRecorded: {"execexit", 2, "record written"},
	ExecExitLogged:   {"execexit", 3, "event logged"},
	DeleteBegun:      {"delete", 1, "turn taken"},
	DeleteRan:        {"delete", 2, "runtime has deleted, stdio closed"},
	DeleteUnmounted:  {"delete", 3, "rootfs unmounted"},
	DeleteLogged:     {"delete", 4, "event logged"},
	ShutdownBegun:    {"shutdown", 1, "nothing left to do"},
	ShutdownHidden:   {"shutdown", 2, "socket removed"},
	ShutdownServed:   {"shutdown", 3, "last answers written"},
	ShutdownFlushed:  {"shutdown", 4, "events flushed"},
}

// Labels returns those of all steps.
func Labels() []Label { return labels[:] }

func (s Step) String() string { return labels[s].Name() + " " + labels[s].What }

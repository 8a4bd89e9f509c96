package order

// Rule is one of the rules, in words.
type Rule string

const (
	Namespaced     Rule = "an event has a namespace, the same throughout"
	Timed          Rule = "an event has a time, which does not go back for a process"
	TopicFits      Rule = "the topic is that of the payload's type"
	Identified     Rule = "an event names its task, and its exec process by another id"
	CreatedFirst   Rule = "the events of a task begin with its creation and end with its deletion"
	StartedOnce    Rule = "a task is started once, after its creation and before its exit"
	AddedOnce      Rule = "an exec process is added once, before the exit of the task"
	ExecStarted    Rule = "an exec process is started once, after it was added and before the exit of the task"
	ExitedOnce     Rule = "a process exits once"
	ExitedNotFail  Rule = "only a task that was created, or an exec process that was started, exits"
	ExitedAtAll    Rule = "a process that was started exits"
	ExecsExitFirst Rule = "the exec processes of a task exit before its init process"
	OOMFirst       Rule = "an OOM of a task comes before the exit of its init process"
	PausedRunning  Rule = "a task is paused and resumed in turns, between its start and its exit"
	DeletedLast    Rule = "a process is deleted once, after its exit, or without one if it was never started"
	DeleteAgrees   Rule = "the deletion repeats status and time of the exit"
	PidsAgree      Rule = "the events of a process have one pid, which is not 0 once it was started"
	ExitTimed      Rule = "an exit says when it happened"
)

// rules is all of them, for the test that each has a history that breaks it. Read only.
var rules = []Rule{
	Namespaced, Timed, TopicFits, Identified, CreatedFirst, StartedOnce, AddedOnce, ExecStarted,
	ExitedOnce, ExitedNotFail, ExitedAtAll, ExecsExitFirst, OOMFirst, PausedRunning, DeletedLast,
	DeleteAgrees, PidsAgree, ExitTimed,
}

// Option relaxes the rules for a history that is not the whole of it.
type Option int

const (
	// BeginsInMiddle is for a log whose reader came late: what a task or exec process had gone
	// through before its first event is not known.
	BeginsInMiddle Option = iota
	// EndsInMiddle is for a log that is read while processes still run.
	EndsInMiddle
	// ExecsDeleted is for a history in which exec processes were deleted before their start and
	// their ids used again, of which the log says nothing.
	ExecsDeleted
	// Compacted is for a shim whose manager had thousands of events to take: it does not tell any more
	// that an exec process has come into being which has ended meanwhile.
	Compacted
)

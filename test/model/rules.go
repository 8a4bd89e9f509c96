package model

// Rule is something that the shim heeds; each can be suspended by itself.
type Rule uint8

const (
	none Rule = iota

	// One operation at a time of a process. The exit is one too.
	StartTakesTheTurn
	StartOfExecTakesTheTurn
	ExitTakesTheTurn
	DeleteTakesTheTurn

	// A life does one thing after the other.
	LifeBeginsAfterTheCreateIsLogged
	RecordComesFirst
	LogComesBeforeWaiters
	OOMIsReportedBefore
	ExitWaitsForExecs
	RestIsKilled
	UnstartedExecsAreAbandoned

	// The gate counts the execs in a container, and those on their way into it.
	DeadLetNobodyIn
	ExecEntersBeforeTheRuntimeRuns
	ExecLeavesAfterItsExitIsLogged
	FailedStartLeaves
	LateExecIsKilled
	NoExecIsAddedAfterTheExit

	// Whoever asks gets an answer.
	DeletesShareOneResult
	FailedStartWakesWaiters
	CommandsAreLimited
	StartIsLimitedByTheDeathOfInit

	// The reaper.
	NamelessWaitForTheEndOfTheBirth
	SignalsReachTheLivingOnly

	// The event log.
	EventIsKeptUntilItIsTaken
	OldestIsSentFirst

	numRules
)

// ruleTexts say what each rule is, in words.
var ruleTexts = [numRules]string{
	StartTakesTheTurn:       "Start holds the turn of the init process until its event is logged",
	StartOfExecTakesTheTurn: "the start of an exec holds its turn until its event is logged",
	ExitTakesTheTurn:        "an exit waits for the turn, and holds it until waiters are woken",
	DeleteTakesTheTurn:      "Delete holds the turn of what it deletes",

	LifeBeginsAfterTheCreateIsLogged: "the life of the init process begins when TaskCreate is logged",
	RecordComesFirst:                 "a life records the exit before it logs it",
	LogComesBeforeWaiters:            "a life logs the exit before it wakes waiters",
	OOMIsReportedBefore:              "the life of the init process has kills for want of memory reported before it goes on",
	ExitWaitsForExecs:                "the life of the init process waits until nobody is inside",
	RestIsKilled:                     "the life of the init process kills the execs that are left",
	UnstartedExecsAreAbandoned:       "the life of the init process gives up the execs that were never started",

	DeadLetNobodyIn:                "once the init process is dead no exec enters",
	ExecEntersBeforeTheRuntimeRuns: "an exec is counted before the runtime is asked for it",
	ExecLeavesAfterItsExitIsLogged: "an exec is counted until its exit is logged",
	FailedStartLeaves:              "an exec whose start fails is counted no more",
	LateExecIsKilled:               "an exec that was on its way in when the init process died is killed",
	NoExecIsAddedAfterTheExit:      "no exec is added once the exit of the init process is logged",

	DeletesShareOneResult:          "a second Delete joins the first",
	FailedStartWakesWaiters:        "who waits for an exec whose start fails is woken",
	CommandsAreLimited:             "a runtime command that hangs is killed",
	StartIsLimitedByTheDeathOfInit: "a start that hangs is killed when the init process is dead",

	NamelessWaitForTheEndOfTheBirth: "the exit of a child without a name is not lost while a runtime command may tell us one",
	SignalsReachTheLivingOnly:       "looking whether a process lives and sending it a signal are one step",

	EventIsKeptUntilItIsTaken: "an event stays in the queue until the manager has taken it",
	OldestIsSentFirst:         "the oldest event is sent, and nothing overtakes it",
}

func (r Rule) String() string { return ruleTexts[r] }

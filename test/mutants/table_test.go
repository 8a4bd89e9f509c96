package mutants

// mutants is a table of rules, each with a change that breaks it and the tests that are there for it.
// What it replaces is as short as it can be, and whole lines.
var mutants = []mutant{
	{
		breaks: "the exit is on disk when its event is logged",
		file:   "process/life.go",
		tests:  "TestExitIsLoggedBetweenRecordAndWaiters",
		old:    "\tc.record(ExitFile, child.Pid(), exit, c.cause(exit))",
		new:    "\tdefer c.record(ExitFile, child.Pid(), exit, c.cause(exit))",
	},
	{
		breaks: "the exit of an exec is on disk when its event is logged",
		file:   "process/life.go",
		tests:  "TestExitIsLoggedBetweenRecordAndWaiters",
		old:    "\tc.record(execExitFile(e.cfg.ID), child.Pid(), exit, c.causeOfExec(e, exit))",
		new:    "\tdefer c.record(execExitFile(e.cfg.ID), child.Pid(), exit, c.causeOfExec(e, exit))",
	},
	{
		breaks: "the exit is logged before waiters wake",
		file:   "process/life.go",
		tests:  "TestExitIsLoggedBetweenRecordAndWaiters",
		old:    "\tc.abandoned = true // from now on no exec is added: its event would come after the exit",
		new: `	c.abandoned = true
	c.init.finish(exit)`,
	},
	{
		breaks: "the exit of an exec is logged before waiters wake",
		file:   "process/life.go",
		tests:  "TestExitIsLoggedBetweenRecordAndWaiters",
		old:    "\t\tc.cfg.Events.Append(taskExit(c.cfg.ID, e.cfg.ID, child.Pid(), exit))",
		new: `		e.finish(exit)
		c.cfg.Events.Append(taskExit(c.cfg.ID, e.cfg.ID, child.Pid(), exit))`,
	},
	{
		breaks: "the exit of the container waits for those of its execs",
		file:   "process/life.go",
		tests:  "TestInitExitWaitsForExecs",
		old:    "\tc.await(empty)",
		new:    "\t_ = empty",
	},
	{
		breaks: "an exec is counted until its exit is logged",
		file:   "process/life.go",
		tests:  "TestInitExitWaitsForExecs",
		old:    "\tdefer c.gate.leave()",
		new:    "\tc.gate.leave()",
	},
	{
		breaks: "the death of the init process ends its execs",
		file:   "process/life.go",
		tests:  "TestExecsAreKilledWhenInitDies",
		old:    "\t\tif child := e.alive(); child != nil {",
		new:    "\t\tif child := e.alive(); child != nil && c.spec.PrivatePID {",
	},
	{
		breaks: "who waits for an exec that can never start any more is woken",
		file:   "process/life.go",
		tests:  "TestExecThatIsNeverStartedIsAbandonedWithItsTask",
		old:    "\t\t\te.finish(reaper.Exit{})",
		new:    "\t\t\t_ = reaper.Exit{}",
	},
	{
		breaks: "no exec enters once the init process is dead",
		file:   "process/gate.go",
		tests:  "TestInitExitWaitsForExecs",
		old:    "\tif g.shut {",
		new:    "\tif g.shut && g.inside == 0 {",
	},
	{
		breaks: "an exec that was on its way in when the init process died is killed",
		file:   "process/exec.go",
		tests:  "TestExecsAreKilledWhenInitDies",
		old:    "\tif c.gate.closed() {",
		new:    "\tif c.gate.closed() && c.spec.PrivatePID {",
	},
	{
		breaks: "no exec is added once the exit is logged",
		file:   "process/exec.go",
		tests:  "TestNoExecIsAddedAfterTheExit",
		old:    "\tif c.abandoned {",
		new:    "\tif c.abandoned && e == nil {",
	},
	{
		breaks: "an exec whose start fails is counted no more",
		file:   "process/exec.go",
		tests:  "TestFailedExecIsFinal",
		old:    "\t\tif inside {",
		new:    "\t\tif inside && err == nil {",
	},
	{
		breaks: "who waits for an exec whose start fails is woken",
		file:   "process/exec.go",
		tests:  "TestFailedExecIsFinal",
		old:    "\t\tif e.current() == Failed {",
		new:    "\t\tif e.current() == Created {",
	},
	{
		breaks: "an exec gives back its slot",
		file:   "process/exec.go",
		tests:  "TestSlotsAreGivenBack",
		old:    "\tdefer c.slots.give()",
		new:    "",
	},
	{
		breaks: "the sender of events rests when the manager has gone",
		file:   "shim/eventlog.go",
		tests:  "TestSenderRestsWhileTheManagerIsAway",
		old:    "\t\tto.lose()\n\t\treturn true",
		new:    "\t\treturn true",
	},
	{
		breaks: "a pause waits for execs that are being started",
		file:   "process/init.go",
		tests:  "TestPauseAndExecsThatStart",
		old:    "\t\trelease, all := c.slots.takeAll(patient)",
		new:    "\t\trelease, all := func() {}, patient.Err() == nil",
	},
	{
		breaks: "a pause goes ahead of execs that wait",
		file:   "process/slots.go",
		tests:  "TestPauseGoesAhead",
		old:    "\ts.giveTo(mine)\n",
		new:    "",
	},
	{
		breaks: "the exit waits for its turn",
		file:   "process/process.go",
		tests:  "TestExitWaitsForTheTurn",
		old: `	if err := p.take(ctx, op); err != nil {
		return err
	}
	defer p.give()`,
		new: `	if op != Exit {
		if err := p.take(ctx, op); err != nil {
			return err
		}
		defer p.give()
	}`,
	},
	{
		breaks: "Start takes the turn",
		file:   "process/process.go",
		tests:  "TestExitWaitsForTheTurn",
		old: `	if err := p.take(ctx, op); err != nil {
		return err
	}
	defer p.give()`,
		new: `	if op != Start {
		if err := p.take(ctx, op); err != nil {
			return err
		}
		defer p.give()
	}`,
	},
	{
		breaks: "a failed operation changes no state",
		file:   "process/process.go",
		tests:  "TestFailedDeleteMayBeRepeated",
		old:    "\t\t\tp.set(orElse(next.fail, from))",
		new:    "\t\t\tp.set(orElse(next.fail, next.to))",
	},
	{
		breaks: "a second Delete joins the first",
		file:   "process/flight.go",
		tests:  "TestConcurrentDeletesShareOneResult",
		old:    "\tif f.now != nil {",
		new:    "\tif f.now != nil && f.now.exit.Status < 0 {",
	},
	{
		breaks: "a Delete that has failed can be asked for again",
		file:   "process/flight.go",
		tests:  "TestFailedDeleteMayBeRepeated",
		old:    "\t\t\tf.now = nil",
		new:    "\t\t\t_ = f.now",
	},
	{
		breaks: "a start that hangs does not keep the exit of a dead init process",
		file:   "process/container.go",
		tests:  "TestExitIsToldThoughTheStartHangs|TestExitIsToldThoughTheRuntimeHangs",
		old: `		case <-timer.C:
			cancel()`,
		new: "\t\tcase <-timer.C:",
	},
	{
		breaks: "a deletion follows an exit",
		file:   "process/init.go",
		tests:  "TestDeleteOfACreatedContainerLogsItsExitFirst",
		old:    "\tif child == nil || c.init.current() != Created {",
		new:    "\tif child == nil || c.init.current() == Created {",
	},
	{
		breaks: "an earlier container's exit is not taken for this one's",
		file:   "process/create.go",
		tests:  "TestNewContainerForgetsTheExitOfAnEarlierOne",
		old:    "\tif err := forgetExit(c.cfg.Bundle); err != nil {",
		new:    "\tif err := forgetExit(os.DevNull); err != nil {",
	},

	{
		breaks: "an event stays until the manager has taken it",
		file:   "shim/eventlog.go",
		tests:  "TestEventsArriveOnceAndInOrderWhateverTheManagerDoes",
		old: `	if err == nil {
		l.drop(false)
	}`,
		new: "\tl.drop(false)",
	},
	{
		breaks: "the oldest event is sent first",
		file:   "shim/eventlog.go",
		tests:  "TestEventsArriveOnceAndInOrderWhateverTheManagerDoes",
		old:    "\treturn l.queue[0], false",
		new:    "\treturn l.queue[len(l.queue)-1], false",
	},
	{
		breaks: "what waited is held back after the manager's return",
		file:   "shim/eventlog.go",
		tests:  "TestWhatWaitedIsHeldBackForSubscribers",
		old:    "\tif returned {",
		new:    "\tif returned && e == nil {",
	},
	{
		breaks: "Close sends what waits",
		file:   "shim/eventlog.go",
		tests:  "TestCloseSendsWhatWaits",
		old: `	if len(l.queue) == 0 {
		return nil, l.closing`,
		new: `	if len(l.queue) == 0 || l.closing {
		return nil, l.closing`,
	},
	{
		breaks: "Close does not wait for the end of a pause",
		file:   "shim/eventlog.go",
		tests:  "TestCloseTriesAtOnceHoweverLongTheManagerWasAway",
		old:    "\tl.rush()\n\tl.poke()",
		new:    "\tl.poke()",
	},
	{
		breaks: "who follows the events is told of each change",
		file:   "shim/follow.go",
		tests:  "TestFollowersAreAnswered",
		old:    "\tl.revision++\n\tif l.changed != nil {",
		new:    "\tl.revision++\n\tif l.changed == nil {",
	},
	{
		breaks: "a shim that ends waits for who is about to ask again",
		file:   "shim/follow.go",
		tests:  "TestWhoAsksAgainIsToldOfTheEnd",
		old:    "l.followers > 0 || time.Since(l.followed) < partingTime",
		new:    "l.followers > 0",
	},
	{
		breaks: "what is not as expected in Go's runtime is not changed",
		file:   "internal/tune/main.go",
		tests:  "TestChangesAreMade",
		old:    "n != c.times",
		new:    "n < 0",
	},
	{
		breaks: "an exit is never left out",
		file:   "shim/compact.go",
		tests:  "TestManyEventsAreCompacted",
		old:    "\t\t\texited[[2]string{e.ContainerID, e.ID}] = true",
		new: `			exited[[2]string{e.ContainerID, e.ID}] = true
			drop[i] = i%2 == 0`,
	},
	{
		breaks: "what is left out is an exec whose exit waits",
		file:   "shim/compact.go",
		tests:  "TestOnlyExecsThatHaveExitedAreLeftOut",
		old:    "\t\t\tdelete(exited, key) // what is before it has the same id only",
		new:    "",
	},

	{
		breaks: "a signal stands for many deaths",
		file:   "internal/reaper/reaper.go",
		tests:  "TestAllWhoDiedDuringABirthAreReapedAtItsEnd",
		old: `	for r.next() {
	}`,
		new: "\tr.next()",
	},
	{
		breaks: "children without a name are left alone while a command may tell it",
		file:   "internal/reaper/reaper.go",
		tests:  "TestNamelessChildrenWaitForTheEndOfTheBirthAndAreThenReaped",
		old:    "\tif len(r.births) == 0 {",
		new:    "\tif len(r.births) >= 0 {",
	},
	{
		breaks: "a nameless child holds up nobody's end",
		file:   "internal/reaper/reaper.go",
		tests:  "TestNamelessChildrenAreReapedThoughABirthGoesOn",
		old:    "\t\ttime.AfterFunc(r.patience, r.bury) // ends by itself",
		new:    "\t\t_ = time.AfterFunc",
	},
	{
		breaks: "the exit of a nameless child is kept for who may name it",
		file:   "internal/reaper/reaper.go",
		tests:  "TestNamelessChildrenAreReapedThoughABirthGoesOn",
		old:    "\tif len(r.births) > 0 {",
		new:    "\tif len(r.births) < 0 {",
	},
	{
		breaks: "an exit is kept no longer than needed",
		file:   "internal/reaper/reaper.go",
		tests:  "TestExitsThatNobodyClaimsAreForgotten",
		old:    "\t\tif u.before <= oldest {",
		new:    "\t\tif u.before < oldest {",
	},
	{
		breaks: "who died nameless during a birth is reaped after it",
		file:   "internal/reaper/reaper.go",
		tests:  "TestNamelessChildrenWaitForTheEndOfTheBirthAndAreThenReaped",
		old:    "\tif left {",
		new:    "\tif left && false {",
	},
	{
		breaks: "no signal goes to a pid that has been reaped",
		file:   "internal/reaper/child.go",
		tests:  "TestSignalReachesTheLivingOnly",
		old:    "\t\treturn os.ErrProcessDone",
		new:    "\t\t_ = os.ErrProcessDone",
	},

	{
		breaks: "Close looks a last time",
		file:   "oom/watch.go",
		tests:  "TestCloseLooksWithoutNotification|TestKillOfInitIsReportedOnceBeforeCloseReturns",
		old:    "\t\t\tif _, err := w.look(); err != nil && killed {",
		new:    "\t\t\tif err := error(nil); err != nil && killed {",
	},
	{
		breaks: "a kill is reported once",
		file:   "oom/watch.go",
		tests:  "TestKillOfInitIsReportedOnceBeforeCloseReturns",
		old:    "\tif err != nil || n.kills <= w.kills.Load() {",
		new:    "\tif err != nil || n.kills < w.kills.Load() {",
	},

	{
		breaks: "a write waits for room",
		file:   "stdio/relay.go",
		tests:  "TestLastLineWaitsForRoom",
		old:    "\t\tb = b[max(n, 0):]",
		new:    "\t\tb = nil",
	},
	{
		breaks: "what the process has left behind is passed on",
		file:   "stdio/stdio.go",
		tests:  "TestOutputIsByteExact",
		old: `	for _, r := range s.relays {
		if !r.input {
			r.drain(s.exited.Add(drainLimit))`,
		new: `	for _, r := range s.relays {
		if !r.input {
			r.cut()`,
	},
	{
		breaks: "the output is drained when all of it is passed on",
		file:   "stdio/stdio.go",
		tests:  "TestOutputIsByteExact|TestReaderSeesTheEndBeforeClose",
		old:    "\tif s.outputs > 0 || isClosed(s.drained) {",
		new:    "\tif isClosed(s.drained) {",
	},
	{
		breaks: "last words wait for their reader",
		file:   "stdio/end.go",
		tests:  "TestLastWordsWaitForAReader",
		old:    "\treturn heir(e.fd)",
		new:    "\treturn -1",
	},
	{
		breaks: "a child that does not run its program yet is no reader",
		file:   "stdio/farewell.go",
		tests:  "TestLastWordsAreKeptWhileOthersAreStarted",
		old:    "\t\t\tif !uncertain {",
		new:    "\t\t\tif !uncertain || pause > 0 {",
	},
	{
		breaks: "a child is no reader as long as it may have a copy of ours",
		file:   "internal/reaper/fork.go",
		tests:  "TestForkIsOverWhenItsChildIsInItsProgram",
		old:    "\tif f.pid <= 0 || f.old() {",
		new:    "\tif f.pid != 0 || f.old() {",
	},
	{
		breaks: "a child may have a copy of ours after its fork has returned",
		file:   "internal/reaper/fork.go",
		tests:  "TestForkingTellsOfThoseThatHaveReturned",
		old:    "\t\tover[f] = f.Over()",
		new:    "\t\tover[f] = f.returned()",
	},
	{
		breaks: "a thread lives as long as the commands that would die with it",
		file:   "internal/reaper/threads.go",
		tests:  "TestCommandsSurviveTheShedding",
		old:    "tid == os.Getpid() || r.parents[tid] > 0",
		new:    "tid == os.Getpid()",
	},
	{
		breaks: "a command that has ended holds no thread",
		file:   "internal/reaper/reaper.go",
		tests:  "TestCommandsSurviveTheShedding",
		old:    "\tr.untie(c.thread)\n",
		new:    "",
	},

	{
		breaks: "a command that hangs is killed",
		file:   "runc/command.go",
		tests:  "TestFailedExecKillsItsProcessAndNothingElse/hung",
		old:    "\t\t_ = child.SignalGroup(unix.SIGKILL) // an error says that it has just ended",
		new:    "",
	},
	{
		breaks: "a create that fails is undone",
		file:   "runc/birth.go",
		tests:  "TestAbortedCreateIsUndone",
		old:    "\tif err := r.Delete(ctx, true); err != nil {",
		new:    "\tif err := ctx.Err(); err != nil {",
	},
	{
		breaks: "the process of an exec that fails is killed",
		file:   "runc/birth.go",
		tests:  "TestFailedExecKillsItsProcessAndNothingElse",
		old:    "\t\t_ = child.Signal(unix.SIGKILL) // an error says that it is dead",
		new:    "\t\t_ = child.Signal(unix.Signal(0))",
	},
	{
		breaks: "what a dead shim has left does not fail the next try",
		file:   "runc/birth.go",
		tests:  "TestLeftoversOfADeadShimDoNotFailTheNextTry",
		old: `		if err := bundle.Remove(p); err != nil {
			return fmt.Errorf("remove old pid file: %w", err)`,
		new: `		if _, err := os.Stat(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old pid file: %w", err)`,
	},
	{
		breaks: "a group that another container lives in is left alone",
		file:   "internal/cgroup/remove.go",
		tests:  "TestGroupsOfOthersAreLeftAlone|TestOthersMayComeLater",
		old:    "\t\tif (round%lookEvery == 0 || over) && containsAny(members, others) {",
		new:    "\t\tif round < 0 && containsAny(members, others) {",
	},
	{
		breaks: "what is left of a container is killed, and not its neighbour in the same group",
		file:   "shim/leftover.go",
		tests:  "TestNeighbourInTheSameCgroupLivesOn",
		old:    "\t\tpids, strike = []int{s.Pid}, s.Signal",
		new:    "\t\tpids = []int{s.Pid}",
	},
	{
		breaks: "a deletion ends a restore",
		file:   "process/init.go",
		tests:  "TestDeleteCutsARestoreShort",
		old:    "\tc.onDelete(cancel)\n",
		new:    "",
	},
	{
		breaks: "a shim that was told to end does so after a deletion that has failed first",
		file:   "shim/service.go",
		tests:  "TestShutdownIsRememberedWhileTheLastContainerGoes",
		old:    "\te.unwanted = s.leaving && !runs",
		new:    "\te.unwanted = false",
	},
	{
		breaks: "who is in a container's group is not killed for that alone",
		file:   "shim/leftover.go",
		tests:  "TestHalfMadeContainerIsKilledWithProof",
		old:    "\t\tif err != nil || at != filepath.Clean(root) {",
		new:    "\t\tif err != nil || at == \"\" {",
	},
}

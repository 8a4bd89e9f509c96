package model

import (
	"strings"

	"holdfast/test/order"
)

// promise is what the rules are good for.
type promise string

// fault is a promise that a step breaks, rather than what comes of it.
type fault uint8

const (
	strangerIsKilled fault = iota + 1
	differentAnswers
)

var faults = [...]promise{
	strangerIsKilled: "a signal goes to whoever has the pid now",
	differentAnswers: "two who have asked for the same Delete get different answers",
}

// judge looks at one moment, and returns what is wrong with it, or "".
func (s *state) judge() promise {
	switch {
	case s.fault != 0:
		return faults[s.fault]
	case s.logged(exitEvent) && !s.init.recorded, s.logged(execExitEvent) && !s.exec.recorded:
		return "the exit can be seen before it is recorded"
	case s.init.done && !s.logged(exitEvent), s.exec.done && s.logged(execStartEvent) && !s.logged(execExitEvent):
		return "waiters wake before the exit is logged"
	case s.inside < 0:
		return "more leave than have entered"
	}
	return ""
}

// check applies the rules of package order to what the manager has got.
func (h history) check(opts ...order.Option) promise {
	if err := order.Check(h.client(), opts...); err != nil {
		return promise(err.Error())
	}
	return ""
}

// isEnd tells whether all is done: there was no container, or it is deleted; nobody waits for an
// answer, nothing runs, nothing is left to send.
func (s *state) isEnd() bool {
	gone := s.init.status == deleted || s.create == over && s.init.status == absent
	return gone && s.stuck() == "" && !s.init.body.lives() && !s.exec.body.lives()
}

// stuck tells who has not come to an end, for a moment in which nothing happens unless a manager asks
// for more or a process dies by itself.
func (s *state) stuck() promise {
	initLives, execLives := s.init.body.lives(), s.exec.body.lives()
	var who []string
	note := func(name string, stuck bool) {
		if stuck {
			who = append(who, name)
		}
	}
	note("Create", s.create.busy())
	note("Start", s.start.busy() && !(s.start == hangs && initLives))
	note("Exec", s.add.busy())
	note("Start of the exec", s.startExec.busy())
	for i := range s.deletes {
		note("Delete", s.deletes[i].busy())
		note("Delete of the exec", s.execDeletes[i].busy())
	}
	note("Wait for init", s.exists() && !s.init.done && !initLives)
	note("Wait for the exec", s.exec.status != absent && !s.exec.done && !execLives && !(s.exec.status == created && initLives))
	note("the life of init", s.initLife.busy() && !initLives)
	note("the life of the exec", s.execLife.busy() && !execLives)
	note("the report of an OOM", s.oom.busy())
	note("the event log", s.queue[0] != 0)
	note("the exec, without its container,", execLives && !initLives)
	if len(who) == 0 {
		return ""
	}
	return promise("for ever: " + strings.Join(who, ", "))
}

package model

// A life is a goroutine that lasts from the birth of a process to its logged exit. Its steps follow
// one another.

// liveInit is the life of the init process.
func (m *moves) liveInit() {
	s := m.now
	next := func(what string, to stage, do func(*state)) {
		m.will("init's life "+what, func(s *state) { do(s); s.initLife = to })
	}
	switch s.initLife {
	case awaits:
		if s.init.body == reaped {
			next("closes the gate", closes, func(s *state) { s.shut = true })
		}
	case closes:
		next("closes the OOM watch", records, func(s *state) {
			if m.heeds(OOMIsReportedBefore) {
				s.reportOOM()
			}
		})
	case records:
		next("records the exit", kills, func(s *state) { s.init.recorded = m.heeds(RecordComesFirst) })
	case kills:
		next("kills the execs that are left", leaves, func(s *state) {
			if s.exec.named && m.heeds(RestIsKilled) {
				s.exec.signal()
			}
		})
	case leaves:
		if s.inside == 0 || !m.heeds(ExitWaitsForExecs) {
			next("finds nobody inside", asks, func(*state) {})
		}
	case gives:
		if !s.exec.turn {
			next("gives up what was never started", over, func(s *state) {
				if s.exec.status == created && m.heeds(UnstartedExecsAreAbandoned) {
					s.exec.status, s.exec.done = failed, true
				}
			})
		}
	default:
		m.exit("init's life", s.initLife, lifeEnd{
			of:   func(s *state) *process { return &s.init },
			at:   func(s *state) *stage { return &s.initLife },
			log:  func(s *state) { s.queue.push(exitEvent); s.abandoned = true },
			then: gives,
		})
	}
}

// liveExec is the life of the exec.
func (m *moves) liveExec() {
	s := m.now
	early := !m.heeds(ExecLeavesAfterItsExitIsLogged)
	next := func(what string, to stage, do func(*state)) {
		m.will("the exec's life "+what, func(s *state) { do(s); s.execLife = to })
	}
	leave := func(s *state, now bool) {
		if now {
			s.inside--
		}
	}
	switch s.execLife {
	case awaits:
		if s.exec.body == reaped {
			next("records the exit", asks, func(s *state) {
				s.exec.recorded = m.heeds(RecordComesFirst)
				leave(s, early)
			})
		}
	case leaves:
		next("leaves", over, func(s *state) { leave(s, !early) })
	default:
		m.exit("the exec's life", s.execLife, lifeEnd{
			of:   func(s *state) *process { return &s.exec },
			at:   func(s *state) *stage { return &s.execLife },
			log:  func(s *state) { s.queue.push(execExitEvent) },
			then: leaves,
		})
	}
}

// lifeEnd is what is different in the ends of two lives.
type lifeEnd struct {
	of   func(*state) *process
	at   func(*state) *stage
	log  func(*state)
	then stage
}

// exit is how an exit becomes known: under the turn the status changes, the event is logged, waiters
// are woken.
func (m *moves) exit(who string, at stage, e lifeEnd) {
	switch at {
	case asks:
		if m.free(*e.of(&m.now), ExitTakesTheTurn) {
			m.will(who+" changes the status", func(s *state) {
				p := e.of(s)
				m.take(p, ExitTakesTheTurn)
				p.status, p.done, *e.at(s) = stopped, !m.heeds(LogComesBeforeWaiters), logs
			})
		}
	case logs:
		m.will(who+" logs the exit", func(s *state) { e.log(s); *e.at(s) = wakes })
	case wakes:
		m.will(who+" wakes waiters", func(s *state) {
			p := e.of(s)
			p.done, p.recorded, *e.at(s) = true, true, e.then
			m.give(p, ExitTakesTheTurn)
		})
	}
}

// watch is the OOM watch: the kernel counts a kill before it kills, and the watch notices when it can.
func (m *moves) watch() {
	switch {
	case m.now.world == withOOM && m.now.oom == idle && m.now.initLife == awaits && m.now.init.body.lives():
		m.may("something is killed for want of memory", func(s *state) { s.oom = logs })
	case m.now.oom == logs:
		m.will("the OOM watch reports it", (*state).reportOOM)
	}
}

func (s *state) reportOOM() {
	if s.oom == logs {
		s.oom = over
		s.queue.push(oomEvent)
	}
}

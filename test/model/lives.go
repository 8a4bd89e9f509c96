package model

// liveInit is the life of the init process: a goroutine whose steps follow one another.
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
		if m.heeds(RecordComesFirst) {
			next("records the exit", kills, func(s *state) { s.recorded = true })
		} else {
			next("goes on", kills, func(*state) {})
		}
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
	case asks:
		if m.free(s.init, ExitTakesTheTurn) {
			next("changes the status", logs, func(s *state) {
				m.take(&s.init, ExitTakesTheTurn)
				s.init.status = stopped
				if !m.heeds(LogComesBeforeWaiters) {
					s.init.done = true
				}
			})
		}
	case logs:
		next("logs the exit", wakes, func(s *state) { s.queue.push(exitEvent); s.abandoned = true })
	case wakes:
		next("wakes waiters", gives, func(s *state) {
			s.init.done = true
			m.give(&s.init, ExitTakesTheTurn)
			s.recorded = true
		})
	case gives:
		if !s.exec.turn {
			next("gives up what was never started", over, func(s *state) {
				if s.exec.status == created && m.heeds(UnstartedExecsAreAbandoned) {
					s.exec.status, s.exec.done = failed, true
				}
			})
		}
	}
}

// liveExec is the life of the exec.
func (m *moves) liveExec() {
	s := m.now
	next := func(what string, to stage, do func(*state)) {
		m.will("the exec's life "+what, func(s *state) { do(s); s.execLife = to })
	}
	leave := func(s *state, yes bool) {
		if yes {
			s.inside--
		}
	}
	switch early := !m.heeds(ExecLeavesAfterItsExitIsLogged); s.execLife {
	case awaits:
		if s.exec.body == reaped {
			next("sees its exit", asks, func(s *state) { leave(s, early) })
		}
	case asks:
		if m.free(s.exec, ExitTakesTheTurn) {
			next("changes the status", logs, func(s *state) {
				m.take(&s.exec, ExitTakesTheTurn)
				s.exec.status = stopped
				if !m.heeds(LogComesBeforeWaiters) {
					s.exec.done = true
				}
			})
		}
	case logs:
		next("logs the exit", wakes, func(s *state) { s.queue.push(execExitEvent) })
	case wakes:
		next("wakes waiters", leaves, func(s *state) {
			s.exec.done = true
			m.give(&s.exec, ExitTakesTheTurn)
		})
	case leaves:
		next("leaves", over, func(s *state) { leave(s, !early) })
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

package model

// exists tells whether the manager has a container that it can ask for things.
func (s *state) exists() bool { return s.create == over && s.init.status != absent }

// command is a runtime command under way. It may leave a process to us, end well, fail, or hang until
// it is killed, which is a failure too.
type command struct {
	name    string
	at      func(*state) *stage   // runs or hangs
	bears   func(*state) *process // the process that it leaves; nil if none
	limited bool                  // it is killed if it hangs
	well    func(*state)
	fails   func(*state)
}

func (m *moves) command(c command) {
	fails := func(s *state) {
		if c.bears != nil {
			c.bears(s).signal() // nothing is left of what fails
		}
		c.fails(s)
	}
	switch *c.at(&m.now) {
	case runs:
		if c.bears != nil && c.bears(&m.now).body == unborn {
			m.will("the runtime's "+c.name+" makes a process", func(s *state) { c.bears(s).body = alive })
		} else {
			m.will("the runtime's "+c.name+" ends well", func(s *state) {
				if c.bears != nil {
					c.bears(s).named = true
				}
				c.well(s)
			})
		}
		m.may("the runtime's "+c.name+" fails", fails)
		m.may("the runtime's "+c.name+" hangs", func(s *state) { *c.at(s) = hangs })
	case hangs:
		if c.limited && m.heeds(CommandsAreLimited) {
			m.will("the runtime's "+c.name+" is killed", fails)
		}
	}
}

// creator is Create. If it fails nothing is left, and nobody hears of the container.
func (m *moves) creator() {
	logEvent := func(s *state) { s.queue.push(createEvent) }
	beginLife := func(s *state) { s.initLife = awaits }
	first, second := logEvent, beginLife
	if !m.heeds(LifeBeginsAfterTheCreateIsLogged) {
		first, second = second, first
	}
	switch m.now.create {
	case idle:
		m.may("the manager asks for Create", func(s *state) { s.create = runs })
	case logs:
		m.will("Create logs its event, then the life begins: the first of both", func(s *state) { first(s); s.create = begins })
	case begins:
		m.will("Create does the second, and is answered", func(s *state) { second(s); s.create = over })
	}
	m.command(command{
		name: "create", at: func(s *state) *stage { return &s.create }, limited: true,
		bears: func(s *state) *process { return &s.init },
		well:  func(s *state) { s.init.status, s.create = created, logs },
		fails: func(s *state) { s.create = over },
	})
}

// starter is Start of the init process. Hooks may hang as long as they like, while that lives.
func (m *moves) starter() {
	s := m.now
	end := func(s *state) { s.start = over; m.give(&s.init, StartTakesTheTurn) }
	switch s.start {
	case idle:
		if s.exists() {
			m.may("the manager asks for Start", func(s *state) { s.start = asks })
		}
	case asks:
		switch {
		case !m.free(s.init, StartTakesTheTurn):
		case s.init.status != created:
			m.will("Start is refused", func(s *state) { s.start = over })
		default:
			m.will("Start takes the turn", func(s *state) { m.take(&s.init, StartTakesTheTurn); s.start = runs })
		}
	case logs:
		m.will("Start logs its event and is answered", func(s *state) {
			s.init.status = running
			s.queue.push(startEvent)
			end(s)
		})
	}
	m.command(command{
		name: "start", at: func(s *state) *stage { return &s.start },
		limited: s.init.body == reaped && m.heeds(StartIsLimitedByTheDeathOfInit),
		well:    func(s *state) { s.start = logs },
		fails:   end,
	})
}

// adder is Exec, which adds an exec that waits for its start.
func (m *moves) adder() {
	s := m.now
	switch s.add {
	case idle:
		if s.world == withExec && s.exists() && (s.init.status == created || s.init.status == running) {
			m.may("the manager asks for Exec", func(s *state) { s.add = logs })
		}
	case logs:
		if s.abandoned && m.heeds(NoExecIsAddedAfterTheExit) {
			m.will("Exec is refused", func(s *state) { s.add = over })
		} else {
			m.will("Exec enters the exec and logs its event", func(s *state) {
				s.exec.status, s.add = created, over
				s.queue.push(addedEvent)
			})
		}
	}
}

// execStarter is Start of the exec.
func (m *moves) execStarter() {
	s := m.now
	counted := m.heeds(ExecEntersBeforeTheRuntimeRuns)
	switch s.startExec {
	case idle:
		if s.exec.status != absent && s.exec.status != deleted {
			m.may("the manager asks for Start of the exec", func(s *state) { s.startExec = asks })
		}
	case asks:
		switch {
		case !m.free(s.exec, StartOfExecTakesTheTurn):
		case s.exec.status != created:
			m.will("Start of the exec is refused", func(s *state) { s.startExec = over })
		default:
			m.will("Start of the exec takes the turn", func(s *state) {
				m.take(&s.exec, StartOfExecTakesTheTurn)
				s.startExec = enters
			})
		}
	case enters:
		if s.shut && m.heeds(DeadLetNobodyIn) {
			m.will("Start of the exec finds the gate shut", func(s *state) { m.failExec(s, false) })
		} else {
			m.will("the exec enters", func(s *state) { s.enter(counted); s.startExec = runs })
		}
	case looks:
		m.will("Start of the exec looks whether the gate is still open", func(s *state) {
			if s.shut && m.heeds(LateExecIsKilled) {
				s.exec.signal()
			}
			s.startExec = logs
		})
	case logs:
		m.will("Start of the exec logs its event, a life begins, and it is answered", func(s *state) {
			s.enter(!counted)
			s.exec.status, s.startExec, s.execLife = running, over, awaits
			s.queue.push(execStartEvent)
			m.give(&s.exec, StartOfExecTakesTheTurn)
		})
	}
	m.command(command{
		name: "exec", at: func(s *state) *stage { return &s.startExec }, limited: true,
		bears: func(s *state) *process { return &s.exec },
		well:  func(s *state) { s.startExec = looks },
		fails: func(s *state) { m.failExec(s, counted) },
	})
}

func (s *state) enter(counted bool) {
	if counted {
		s.inside++
	}
}

// failExec ends a start of the exec for good.
func (m *moves) failExec(s *state, inside bool) {
	s.startExec, s.exec.status = over, failed
	if inside && m.heeds(FailedStartLeaves) {
		s.inside--
	}
	if m.heeds(FailedStartWakesWaiters) {
		s.exec.done = true
	}
	m.give(&s.exec, StartOfExecTakesTheTurn)
}

// killer is Kill. Between looking and sending the process may have been reaped, and its pid be a
// stranger's, unless both are one step.
func (m *moves) killer(name string, of func(*state) *process) {
	p := of(&m.now)
	switch {
	case m.heeds(SignalsReachTheLivingOnly):
		if p.named && p.body == alive && m.now.exists() {
			m.may("the manager kills "+name, func(s *state) { of(s).signal() })
		}
	case p.kill == looks:
		m.will("Kill sends its signal to the pid of "+name, func(s *state) {
			p := of(s)
			p.kill = over
			if p.body == reaped {
				s.fault = strangerIsKilled
			}
			p.signal()
		})
	case p.kill == idle && p.named && p.body.lives():
		m.may("Kill finds that "+name+" lives", func(s *state) { of(s).kill = looks })
	}
}

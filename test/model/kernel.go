package model

// kernel lets a process die, and the reaper notes how. A process may die whenever it likes, and has to
// when it is killed.
func (m *moves) kernel(name string, of func(*state) *process) {
	switch p := of(&m.now); p.body {
	case alive:
		m.may(name+" dies", func(s *state) { of(s).body = zombie })
	case killed:
		m.will(name+" dies of its signal", func(s *state) { of(s).body = zombie })
	case zombie:
		switch {
		case p.named:
			m.will(name+" is reaped", func(s *state) { of(s).body = reaped })
		case !m.now.birth(): // what a runtime that failed has left
			m.will(name+" is reaped as an orphan", func(s *state) { of(s).body = reaped })
		case !m.heeds(NamelessWaitForTheEndOfTheBirth):
			m.will(name+" is reaped before its pid is known", func(s *state) { of(s).body = lost })
		}
	}
}

// signal kills a process, if it lives. A pid that has been reaped may be a stranger's.
func (p *process) signal() {
	if p.body == alive {
		p.body = killed
	}
}

// birth tells whether a runtime command is under way that may still tell us a pid.
func (s *state) birth() bool {
	under := func(at stage) bool { return at == runs || at == hangs }
	return under(s.create) || under(s.startExec)
}

package model

// deleter is one of two callers of Delete.
func (m *moves) deleter(i int) {
	s := m.now
	mine := func(s *state) *stage { return &s.deletes[i] }
	answer := func(s *state, to stage) { // to who has joined, too
		for j := range s.deletes {
			if j == i || s.deletes[j] == joined {
				s.deletes[j] = to
			}
		}
	}
	switch *mine(&s) {
	case idle:
		if s.exists() {
			m.ask("Delete", s.deletes[1-i], mine, kills)
		}
	case kills: // an init process that was never started, so that each deletion follows an exit
		m.will("Delete looks whether it was started", func(s *state) {
			*mine(s) = asks
			if s.init.status == created {
				s.init.signal()
				*mine(s) = awaits
			}
		})
	case awaits:
		if s.init.done {
			m.will("Delete finds it dead", func(s *state) { *mine(s) = asks })
		}
	case asks:
		switch {
		case !m.free(s.init, DeleteTakesTheTurn):
		case s.init.status != stopped:
			m.will("Delete is refused", func(s *state) { s.refused(s.init); answer(s, idle) })
		default:
			m.will("Delete takes the turn", func(s *state) { m.take(&s.init, DeleteTakesTheTurn); *mine(s) = runs })
		}
	}
	m.command(command{
		name: "delete", at: mine, limited: true,
		well: func(s *state) {
			s.init.status = deleted
			s.queue.push(deleteEvent)
			m.give(&s.init, DeleteTakesTheTurn)
			answer(s, over)
		},
		fails: func(s *state) { m.give(&s.init, DeleteTakesTheTurn); answer(s, idle) },
	})
}

// execDeleter is one of two callers of Delete for the exec, which has no event.
func (m *moves) execDeleter(i int) {
	s := m.now
	mine := func(s *state) *stage { return &s.execDeletes[i] }
	answer := func(s *state, to stage) {
		for j := range s.execDeletes {
			if j == i || s.execDeletes[j] == joined {
				s.execDeletes[j] = to
			}
		}
	}
	switch *mine(&s) {
	case idle:
		if s.exec.status != absent {
			m.ask("Delete of the exec", s.execDeletes[1-i], mine, asks)
		}
	case asks:
		switch {
		case !m.free(s.exec, DeleteTakesTheTurn):
		case s.exec.status == running || s.exec.status == deleted:
			m.will("Delete of the exec is refused", func(s *state) { s.refused(s.exec); answer(s, idle) })
		default:
			m.will("Delete of the exec deletes it", func(s *state) {
				s.exec.status, s.exec.done = deleted, true
				answer(s, over)
			})
		}
	}
}

// ask is how a Delete begins. If another one is under way it gets the result of that one, and if that
// has been answered it has the answer.
func (m *moves) ask(name string, other stage, mine func(*state) *stage, begin stage) {
	share := m.heeds(DeletesShareOneResult)
	switch {
	case share && other == over:
		m.may(name+" is asked for again, and answered", func(s *state) { *mine(s) = over })
	case share && other.busy():
		m.may(name+" is asked for again, and joins the first", func(s *state) { *mine(s) = joined })
	case share || other != over:
		m.may("the manager asks for "+name, func(s *state) { *mine(s) = begin })
	}
}

// refused is for a Delete that was begun before the deletion was answered, and so should have got
// that answer.
func (s *state) refused(p process) {
	if p.status == deleted {
		s.fault = differentAnswers
	}
}

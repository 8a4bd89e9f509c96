package model

// moves are what can happen next. What *will* happen does so if nothing else does; what *may* happen
// need not: a manager may never ask again, and a process may live for ever.
type moves struct {
	now       state
	suspended Rule
	all       []move
}

// move is one step of one actor, which nothing else comes in between of.
type move struct {
	what string
	sure bool
	to   state
}

// after returns the moves from a state, when all rules but one are heeded.
func after(s state, suspended Rule) []move {
	m := &moves{now: s, suspended: suspended}
	initOf := func(s *state) *process { return &s.init }
	execOf := func(s *state) *process { return &s.exec }

	m.creator()
	m.starter()
	m.adder()
	m.execStarter()
	m.deleter(0)
	m.deleter(1)
	m.execDeleter(0)
	m.execDeleter(1)
	m.killer("init", initOf)
	m.killer("the exec", execOf)

	m.kernel("init", initOf)
	m.kernel("the exec", execOf)
	m.watch()
	m.liveInit()
	m.liveExec()
	m.sender()
	return m.all
}

func (m *moves) will(what string, do func(*state)) { m.add(what, true, do) }
func (m *moves) may(what string, do func(*state))  { m.add(what, false, do) }

func (m *moves) add(what string, sure bool, do func(*state)) {
	to := m.now
	do(&to)
	to.sort()
	m.all = append(m.all, move{what, sure, to})
}

// sort makes two moments one that differ only in which of two callers is which.
func (s *state) sort() {
	for _, pair := range []*[2]stage{&s.deletes, &s.execDeletes} {
		if pair[0] > pair[1] {
			pair[0], pair[1] = pair[1], pair[0]
		}
	}
}

func (m *moves) heeds(r Rule) bool { return m.suspended != r }

// free tells whether the turn can be taken by an operation that takes it by rule r.
func (m *moves) free(p process, r Rule) bool { return !p.turn || !m.heeds(r) }

func (m *moves) take(p *process, r Rule) {
	if m.heeds(r) {
		p.turn = true
	}
}

func (m *moves) give(p *process, r Rule) {
	if m.heeds(r) {
		p.turn = false
	}
}

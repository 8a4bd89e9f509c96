package model

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/test/order"
)

// Result is what Explore has found.
type Result struct {
	States, Moves int
	Histories     int      // different ones that a manager can have got
	Broken        string   // a promise; "" if all are kept
	Steps         []string // the shortest way to where it is broken
}

func (r Result) String() string {
	var b strings.Builder
	for i, step := range r.Steps {
		fmt.Fprintf(&b, "%3d %s\n", i+1, step)
	}
	fmt.Fprintf(&b, "    broken: %s", r.Broken)
	return b.String()
}

// explorer goes through all moments, those first that take the fewest steps.
type explorer struct {
	suspended Rule
	found     map[state]int32
	states    []state
	from      []int32 // the state from which each was found first
	ways      []way   // all moves
	judged    map[history]promise
}

// way is a move from one state to another, by their numbers.
type way struct{ from, to int32 }

// Explore goes through everything that can happen when all rules but one are heeded. It stops at the
// first broken promise.
func Explore(suspended Rule) Result {
	e := &explorer{suspended: suspended, found: map[state]int32{}, judged: map[history]promise{}}
	e.find(state{world: withExec}, -1)
	e.find(state{world: withOOM}, -1)
	for i := int32(0); int(i) < len(e.states); i++ {
		if broken := e.expand(i); broken != "" {
			return e.result(i, broken)
		}
	}
	if i := e.dead(); i >= 0 {
		return e.result(i, "there is no way to the end")
	}
	return e.result(-1, "")
}

// find notes a state, and returns its number.
func (e *explorer) find(s state, from int32) int32 {
	if i, known := e.found[s]; known {
		return i
	}
	i := int32(len(e.states)) //nolint:gosec // memory ends before that
	e.found[s] = i
	e.states, e.from = append(e.states, s), append(e.from, from)
	return i
}

// expand judges state i and finds those that can follow it.
func (e *explorer) expand(i int32) promise {
	s := e.states[i]
	if broken := e.judge(s); broken != "" {
		return broken
	}
	rests := true
	for _, m := range after(s, e.suspended) {
		e.ways = append(e.ways, way{i, e.find(m.to, i)})
		rests = rests && !m.sure
	}
	if rests {
		return s.stuck()
	}
	return ""
}

// dead returns a state from which no end can be reached, or -1.
func (e *explorer) dead() int32 {
	into := make([][]int32, len(e.states))
	for _, w := range e.ways {
		into[w.to] = append(into[w.to], w.from)
	}
	good := make([]bool, len(e.states))
	var todo []int32
	reach := func(i int32) {
		if !good[i] {
			good[i] = true
			todo = append(todo, i)
		}
	}
	for i := range e.states {
		if e.states[i].isEnd() {
			reach(int32(i)) //nolint:gosec // as in find
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range into[i] {
			reach(from)
		}
	}
	for i := range good {
		if !good[i] {
			return int32(i) //nolint:gosec // as in find
		}
	}
	return -1
}

// judge looks at a state, and at the history that the manager has got by then.
func (e *explorer) judge(s state) promise {
	if broken := s.judge(); broken != "" {
		return broken
	}
	if s.isEnd() {
		return s.wire.check()
	}
	broken, known := e.judged[s.wire]
	if !known {
		broken = s.wire.check(order.EndsInMiddle)
		e.judged[s.wire] = broken
	}
	return broken
}

// result describes what was found, up to state i.
func (e *explorer) result(i int32, broken promise) Result {
	r := Result{States: len(e.states), Moves: len(e.ways), Histories: len(e.judged), Broken: string(broken)}
	for ; i >= 0 && e.from[i] >= 0; i = e.from[i] {
		for _, m := range after(e.states[e.from[i]], e.suspended) {
			if m.to == e.states[i] {
				r.Steps = append(r.Steps, m.what)
				break
			}
		}
	}
	slices.Reverse(r.Steps)
	return r
}

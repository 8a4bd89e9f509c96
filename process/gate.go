package process

import "sync"

// gate counts the execs that live in a container, and can be closed for good.
//
// A Start enters before it asks the runtime for the exec; the exec's life leaves after it has
// logged the exit, and a Start that fails leaves at once. When the init process has died its
// life closes the gate and waits until nobody is inside: from then on no exec can start, and the
// exit of every exec that did is already in the log.
//
// Only the init's life closes and waits, once. Anyone may enter and leave.
type gate struct {
	mu     sync.Mutex // guards what follows
	inside int
	shut   bool
	empty  chan struct{} // closed when shut and nobody is inside
}

func newGate() *gate { return &gate{empty: make(chan struct{})} }

// enter tells whether the gate was open.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.shut && g.inside == 0 {
		close(g.empty)
	}
}

// close shuts the gate and returns a channel that is closed when nobody is inside.
func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	if g.inside == 0 {
		close(g.empty)
	}
	return g.empty
}

// closed tells whether the init process has died.
func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

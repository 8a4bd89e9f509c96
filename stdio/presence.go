package stdio

import (
	"sync"
	"time"
)

const (
	// While no manager is there FIFOs are looked at in intervals that grow from the first to the
	// second as long as nothing happens in them: nothing tells that a FIFO is full. So a process
	// that fills one is kept waiting for up to the second, and after that up to the first.
	firstGlance = 50 * time.Millisecond
	lastGlance  = 500 * time.Millisecond
	// lastReturn is the longest interval between looks at FIFOs that have grown, once a manager is
	// back; these intervals grow in any case.
	lastReturn = time.Minute
)

// Presence knows whether a manager is there, and lets the output FIFOs of all containers grow
// while none is, so that no process has to wait for its reader; and the pipe of a logger while that
// is not there. There is one in a daemon. While everybody is there, and all pipes are as small as
// ever, it does nothing at all.
//
// The zero value is not of use; all methods may be called concurrently, and none waits.
type Presence struct {
	wake chan struct{} // tells the goroutine that something has changed

	mu       sync.Mutex // guards what follows
	managers int
	fifos    map[*elastic]struct{}
	looking  bool // the goroutine runs
}

// NewPresence returns a Presence without managers.
func NewPresence() *Presence {
	return &Presence{wake: make(chan struct{}, 1), fifos: map[*elastic]struct{}{}}
}

// Arrive tells that a manager is there, one more; Leave has to follow.
func (p *Presence) Arrive() { p.count(1) }

// Leave tells that a manager has gone, one of those that have arrived.
func (p *Presence) Leave() { p.count(-1) }

func (p *Presence) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.managers += n
	p.stir()
}

// add has e looked after until remove.
func (p *Presence) add(e *elastic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fifos[e] = struct{}{}
	p.stir()
}

func (p *Presence) remove(e *elastic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fifos, e)
	p.stir()
}

// attend tells whether the own reader of e is there.
func (p *Presence) attend(e *elastic, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.unread = !there
	p.stir()
}

// away tells whether nobody is there to read e. Called with mu held.
func (p *Presence) away(e *elastic) bool {
	if e.own {
		return e.unread
	}
	return p.managers == 0
}

// stir starts the goroutine if there is something to do, or wakes it. Called with mu held.
func (p *Presence) stir() {
	if p.looking {
		select {
		case p.wake <- struct{}{}:
		default: // it has been told
		}
		return
	}
	for e := range p.fifos {
		if p.away(e) {
			p.looking = true
			go p.look()
			return
		}
	}
}

// look is the goroutine. It ends when everybody is there and all pipes are small again, or when
// no pipe is left.
func (p *Presence) look() {
	timer := time.NewTimer(firstGlance)
	defer timer.Stop()
	was, pause := true, firstGlance
	for {
		pipes := p.next()
		if pipes == nil {
			return
		}
		changed, away := glance(pipes)
		if changed || away != was {
			pause = firstGlance
		}
		was = away
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-p.wake:
		}
		limit := lastReturn
		if away {
			limit = lastGlance
		}
		pause = min(2*pause, limit)
	}
}

// next returns all pipes, and of each whether nobody is there to read it; or none if the goroutine
// has to end, for want of anything to look at.
func (p *Presence) next() map[*elastic]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pipes := make(map[*elastic]bool, len(p.fifos))
	p.looking = false
	for e := range p.fifos {
		pipes[e] = p.away(e)
		p.looking = p.looking || pipes[e] || e.grown()
	}
	if !p.looking {
		return nil
	}
	return pipes
}

// glance looks at the pipes that nobody reads or that have grown. It tells whether there are any
// of the former, and whether anything has happened in one.
func glance(pipes map[*elastic]bool) (changed, away bool) {
	used := map[*Room]int64{}
	for e := range pipes {
		used[e.room] += int64(e.size)
	}
	for e, unread := range pipes {
		if !unread && !e.grown() {
			continue
		}
		before := e.size
		if e.look(unread, e.room.left(used[e.room])) && unread {
			changed = true
		}
		away = away || unread
		used[e.room] += int64(e.size - before)
	}
	return changed, away
}

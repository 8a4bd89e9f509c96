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
// while none is, so that no process has to wait for its reader. There is one in a daemon. While a
// manager is there, and all FIFOs are as small as ever, it does nothing at all.
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

// stir starts the goroutine if there is something to do, or wakes it. Called with mu held.
func (p *Presence) stir() {
	if p.looking {
		select {
		case p.wake <- struct{}{}:
		default: // it has been told
		}
		return
	}
	if p.managers == 0 && len(p.fifos) > 0 {
		p.looking = true
		go p.look()
	}
}

// look is the goroutine. It ends when a manager is there and all FIFOs are small again, or when
// no FIFO is left.
func (p *Presence) look() {
	timer := time.NewTimer(firstGlance)
	defer timer.Stop()
	was, pause := true, firstGlance
	for {
		away, fifos := p.next()
		if fifos == nil {
			return
		}
		if changed := glance(fifos, away); changed && away || away != was {
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

// next returns what is to be looked at. If that is nothing the goroutine has to end.
func (p *Presence) next() (away bool, fifos []*elastic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	away = p.managers == 0
	for e := range p.fifos {
		if away || e.grown() {
			fifos = append(fifos, e)
		}
	}
	p.looking = fifos != nil
	return away, fifos
}

// glance looks at all fifos and tells whether anything has happened in one.
func glance(fifos []*elastic, away bool) (changed bool) {
	used := map[*Room]int64{}
	for _, e := range fifos {
		used[e.room] += int64(e.size)
	}
	for _, e := range fifos {
		before := e.size
		if e.look(away, e.room.left(used[e.room])) {
			changed = true
		}
		used[e.room] += int64(e.size - before)
	}
	return changed
}

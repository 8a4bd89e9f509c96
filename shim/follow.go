package shim

import (
	"context"
	"math"
	"time"

	"holdfast/internal/facts"
)

// partingTime is how long who follows the events of a shim that ends may wait for the last to be taken, by a
// manager that has just returned at the latest.
const partingTime = returnTime + 500*time.Millisecond

// change tells those who follow that there is something new. The caller holds mu.
func (l *EventLog) change() {
	l.revision++
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// part has those who follow be answered for the last time: once nothing waits any more, or soon. If
// there may be any it waits for that; requests have to be answered meanwhile, as who follows asks again.
func (l *EventLog) part() {
	l.rush()
	l.mu.Lock()
	present := l.followers > 0 || time.Since(l.followed) < partingTime
	parted := make(chan struct{})
	l.parting, l.parted = time.Now().Add(partingTime), parted
	l.change()
	l.mu.Unlock()
	if present {
		select {
		case <-parted:
		case <-time.After(partingTime + partingTime/10): // it has gone
		}
	}
}

// follow returns what Facts has of the events, once their revision is not the one that was seen, or when the
// shim ends. It waits as long as ctx lasts, and holds nothing meanwhile.
func (l *EventLog) follow(ctx context.Context, seen uint64) (facts.Facts, error) {
	l.count(1)
	defer l.count(-1)
	for {
		told, last, changed, left := l.news(seen)
		if told {
			f := facts.Facts{Last: last}
			f.Events, f.Revision = l.events()
			return f, nil
		}
		limited, cancel := context.WithTimeout(ctx, left)
		select {
		case <-changed:
		case <-limited.Done():
		}
		cancel()
		if ctx.Err() != nil {
			return facts.Facts{}, ctx.Err()
		}
	}
}

func (l *EventLog) count(followers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followers += followers
}

// news tells whether somebody who has seen a revision is to be told now, and whether for the last time; else
// what to wait for, and how long.
func (l *EventLog) news(seen uint64) (told, last bool, changed <-chan struct{}, left time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ending := !l.parting.IsZero()
	last = ending && (len(l.queue) == 0 || !time.Now().Before(l.parting))
	if last || !ending && l.revision != seen {
		l.followed = time.Now()
		if last && l.parted != nil {
			close(l.parted)
			l.parted = nil
		}
		return true, last, nil, 0
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	if left = math.MaxInt64; ending {
		left = time.Until(l.parting)
	}
	return false, false, l.changed, left
}

package oom

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// nearest is what is known of the nearest level above the container in version 2, which counts for
// all groups below it: it tells of a container's group that has gone.
type nearest struct {
	events *os.File // its memory.events, to be followed; nil if the container's group does not go by itself

	mu   sync.Mutex // guards seen, which two goroutines keep current
	seen level2
}

// level2 is what a level has counted: for all below it, and how often its own limit was hit.
type level2 struct {
	counts
	hits uint64
}

// calm is how long the nearest level is left alone after each look: a neighbour that is short of
// memory wakes us a hundred times a second, and all other containers of the slice as well.
const calm = 100 * time.Millisecond

// follow opens the counter of the nearest level if dir, the container's group, is a scope of
// systemd's: those go with their last process. Without it all works, but less surely.
func (n *nearest) follow(dir string, above []level) {
	if len(above) == 0 || !strings.HasSuffix(dir, ".scope") {
		return
	}
	f, err := openFile(filepath.Join(above[0].dir, "memory.events"))
	if err != nil {
		return
	}
	if f.SetReadDeadline(time.Time{}) != nil {
		_ = f.Close() // it cannot be polled
		return
	}
	n.events = f
}

// runNearest keeps what the nearest level has counted current, until Close or until the container's
// group has gone: so what the neighbours have lost until then is not taken for ours.
func (w *Watch) runNearest() {
	raw, err := w.limits.nearest.events.SyscallConn()
	if err != nil {
		return // closed; cannot be before Close has joined us
	}
	for {
		woken := false
		var gone error
		err := raw.Read(func(fd uintptr) bool {
			if _, gone = countAt(fd); gone == nil { // which arms the next wake-up
				gone = w.neighbours()
			}
			again := woken
			woken = true
			return again || gone != nil
		})
		if err != nil || gone != nil {
			return
		}
		select {
		case <-w.ending:
			return
		case <-time.After(calm):
		}
	}
}

// neighbours remembers what the nearest level has counted, unless there is a kill of the container's
// in it that was not reported, and but for the hits of a limit of the container's whose kill may be yet to come.
// The kernel counts in the container's group first. The error says that the container's group has gone, or the
// level.
func (w *Watch) neighbours() error {
	now, err := w.limits.below()
	if err != nil {
		return err
	}
	own, err := count(w.counter)
	if err == nil && own.kills <= w.kills.Load() {
		now.ooms -= min(now.ooms, own.ooms-min(own.ooms, w.followed.Load()))
		w.limits.nearest.remember(now)
	}
	return err
}

// below reads what the nearest level has counted.
func (l *limits) below() (level2, error) {
	if !l.unified || len(l.above) == 0 {
		return level2{}, fs.ErrNotExist // version 1 counts nothing for groups below
	}
	hits, err1 := l.above[0].count()
	b, err2 := os.ReadFile(filepath.Join(l.above[0].dir, "memory.events"))
	return level2{parse(string(b)), hits}, errors.Join(err1, err2)
}

// see remembers what the nearest level has counted.
func (l *limits) see() {
	if now, err := l.below(); err == nil {
		l.nearest.remember(now)
	}
}

// remember keeps the newest figures: none of them ever falls.
func (n *nearest) remember(now level2) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen.kills = max(n.seen.kills, now.kills)
	n.seen.ooms = max(n.seen.ooms, now.ooms)
	n.seen.hits = max(n.seen.hits, now.hits)
}

// lost tells whether a process was killed below the nearest level since see, and the container's is
// not accounted for; and whether it was a limit below, thus presumably the container's own, that was
// hit. Nobody else may be at work any more.
func (l *limits) lost() (own, lost bool) {
	now, err := l.below()
	before := l.nearest.seen
	if err != nil || now.kills <= before.kills || time.Since(l.at) < episode {
		return false, false
	}
	return now.ooms-before.ooms > now.hits-before.hits, true
}

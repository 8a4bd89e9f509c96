package oom

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Whose limit a kill was for, in a report. Any other text is the directory of a group above the
// container's, that of its pod for instance; "" means that it is not known.
const (
	Own  = "container" // its own, or one that it has set within
	Host = "host"      // nobody's: the machine has run out of memory
)

// episode is how long after a kill further ones are taken for its consequence if no limit has been
// hit meanwhile: a group that is killed as a whole counts its processes one after the other.
const episode = 4 * time.Second

// unlimited is below what the kernel shows for no limit in version 1, and above any that makes sense.
const unlimited = 1 << 62

// level is a group above the container's, whose limit is the container's too.
type level struct {
	dir   string
	hits  uint64 // version 2: how often its own limit was hit, when last looked at
	event int    // version 1: an eventfd that fires when its limit is hit, or that of one above
}

// limits knows the levels, nearest first, and how to tell whose limit was hit. What it holds is
// freed by free.
type limits struct {
	unified bool
	above   []level
	blind   bool // there is a level that cannot be watched

	ooms uint64    // version 2: how often a limit of the container was hit, at the last kill
	last string    // the last answer,
	at   time.Time // and when it was given

	nearest nearest
}

// find looks up the levels above dir, up to the root or to what is mounted here.
func (l *limits) find(dir string, unified bool) {
	l.unified = unified
	for {
		dir = filepath.Dir(dir)
		v := level{dir: dir, event: -1}
		var err error
		if unified {
			v.hits, err = v.count()
		} else {
			v.event, err = listen(dir)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			l.see()
			return
		case err != nil:
			l.blind = true
		case unified || v.event >= 0:
			l.above = append(l.above, v)
		}
	}
}

// count reads how often the limit of the level was hit. Before Linux 5.2 there is but one file, and it
// counts as memory.events.local does since then.
func (v *level) count() (uint64, error) {
	for _, name := range []string{"memory.events.local", "memory.events"} {
		b, err := os.ReadFile(filepath.Join(v.dir, name))
		if err == nil {
			return parse(string(b)).ooms, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
	return 0, fs.ErrNotExist
}

// listen returns an eventfd that fires when the limit of a version 1 group is hit, and -1 if it has
// none. Most groups above a container have none.
func listen(dir string) (int, error) {
	bounded := false
	for _, name := range []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name != "memory.limit_in_bytes" {
			break // no accounting of swap
		}
		if err != nil {
			return -1, err
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		bounded = bounded || err == nil && n < unlimited
	}
	if !bounded {
		return -1, nil
	}
	control, err := openFile(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return -1, err
	}
	defer control.Close() // the kernel holds the group
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("make eventfd: %w", err)
	}
	if err := register(dir, fd, control); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// rose tells whether the limit was hit since it was asked last. In version 1 that of a level above
// will do: the kernel fires all eventfds below the group that has reached its limit.
func (v *level) rose(unified bool) (bool, error) {
	if !unified {
		return fired(uintptr(v.event)), nil
	}
	n, err := v.count()
	if err != nil || n <= v.hits {
		return false, err
	}
	v.hits = n
	return true, nil
}

// whose tells for whose limit the container has lost a process. own says that its own was hit; in
// version 1 that is so for each limit above, too.
//
// Where several were hit since the last kill, the nearest is named in version 2, the highest in
// version 1. A level above that killed in another container earlier may be named for what was the
// host's.
func (l *limits) whose(own bool) string {
	found, known := "", !l.blind
	for i := range l.above {
		rose, err := l.above[i].rose(l.unified)
		known = known && err == nil
		if rose && (found == "" || !l.unified) {
			found = l.above[i].dir
		}
	}
	now := time.Now()
	switch {
	case own && l.unified:
		found = Own
	case found != "":
	case own && known:
		found = Own
	case !own && now.Sub(l.at) < episode:
		found = l.last
	case !own && known:
		found = Host
	}
	l.last, l.at = found, now
	return found
}

// forget takes back that limits were hit for which nothing of the container was killed.
func (l *limits) forget() {
	for i := range l.above {
		_, _ = l.above[i].rose(l.unified) // of version 1, where it cannot fail
	}
}

// free closes the descriptors.
func (l *limits) free() {
	if l.nearest.events != nil {
		_ = l.nearest.events.Close()
	}
	for _, v := range l.above {
		if v.event >= 0 {
			_ = unix.Close(v.event)
		}
	}
}

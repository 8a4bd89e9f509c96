package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killLimit bounds how long Signal tries to get rid of the last process. The runtime's own
	// kill comes next, so it need not be long; a busy host frees hundreds of processes a second.
	killLimit = 2 * time.Second

	// freezeLimit bounds the wait for a group to stand still. A process in uninterruptible sleep
	// cannot be frozen; then the others are signalled as they run.
	freezeLimit = 100 * time.Millisecond

	// longestPause is between two looks at a group that is not yet as it should be.
	longestPause = 20 * time.Millisecond
)

// Signal sends a signal to all processes of the group and of those below it.
//
// SIGKILL leaves none behind, whatever they fork meanwhile: the kernel does it in one piece
// (cgroup.kill, Linux 5.14), or else the group is frozen, signalled and thawed until it is empty,
// for at most 2 seconds. A paused container is killed as well. With cgroup.kill the processes may
// still be on their way out when Signal returns. Other signals are sent once; a paused container
// stays paused.
//
// The error is ErrShared if the processes are not the container's alone, this process among
// them; nothing was signalled then. It is ErrGone if the group does not exist.
//
// If we are killed in between, a group without cgroup.kill may stay frozen; a later Signal or Thaw
// undoes that.
func (g *Group) Signal(sig syscall.Signal) error {
	p, err := g.home()
	if err == nil {
		err = p.signal(sig)
	}
	if errors.Is(err, ErrShared) {
		return fmt.Errorf("cannot send signal %d to the whole container: its processes are in a cgroup"+
			" with others; signal them one by one: %w", sig, err)
	}
	if err != nil {
		return fmt.Errorf("send signal %d to cgroup: %w", sig, err)
	}
	return nil
}

func (p *place) signal(sig syscall.Signal) error {
	// Somebody may have moved us since the group was found.
	ours, err := memberships("self")
	if err != nil {
		return err
	}
	if p.holds(ours) {
		return ErrShared
	}
	d, err := p.open()
	if err != nil {
		return err
	}
	defer d.close()
	if sig != unix.SIGKILL {
		_, err := p.strike(d, sig)
		return err
	}
	if p.unified {
		err := d.write("cgroup.kill", "1")
		// ENOENT: an older kernel. EOPNOTSUPP: a threaded group.
		if err == nil || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return p.exterminate(d)
}

// exterminate kills until nothing is left.
func (p *place) exterminate(d *dir) error {
	left := 0
	var failed error
	empty := settle(killLimit, func() bool {
		left, failed = p.strike(d, unix.SIGKILL)
		return left == 0
	})
	switch {
	case failed != nil && (left > 0 || !errors.Is(failed, ErrGone)):
		return failed
	case !empty:
		return fmt.Errorf("%d processes in %s are still there after %v", left, p.dir, killLimit)
	}
	return nil
}

// strike signals every process once, while they stand still if that can be had, and tells how
// many it found. SIGKILL always thaws what is frozen: it takes effect only then in version 1.
func (p *place) strike(d *dir, sig syscall.Signal) (found int, err error) {
	members, err := d.members()
	if err != nil || len(members) == 0 {
		return 0, err
	}
	if _, us := members[os.Getpid()]; us {
		return 0, ErrShared
	}
	if paused := p.frozen(d); !paused {
		p.freeze(d)
		defer func() { err = errors.Join(err, p.thaw(d, sig == unix.SIGKILL)) }()
		if members, err = d.members(); err != nil {
			return 0, err
		}
	} else if sig == unix.SIGKILL {
		defer func() { err = errors.Join(err, p.thaw(d, true)) }()
	}
	for pid, thread := range members {
		if err1 := p.hit(pid, thread, sig); err1 != nil && err == nil {
			err = fmt.Errorf("signal process %d: %w", pid, err1)
		}
	}
	return len(members), err
}

// hit signals one process, if it is still the one that was listed. The descriptor pins it: once
// that is open, the pid is looked up again, and what got the pid since is not in the group.
func (p *place) hit(pid, thread int, sig syscall.Signal) error {
	if pid <= 1 || pid == os.Getpid() {
		return ErrShared
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
	} else if errors.Is(err, unix.ESRCH) {
		return nil
	}
	now, lost := memberships(strconv.Itoa(thread))
	if errors.Is(lost, ErrGone) || lost == nil && !p.holds(now) {
		return nil
	}
	if lost != nil {
		return lost
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	} else {
		err = unix.Kill(pid, sig) // before Linux 5.3, or out of descriptors
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// settle calls done until it is true, at most for the given time.
func settle(limit time.Duration, done func() bool) bool {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(pause)
	}
}

package stdio

import (
	"math/bits"

	"golang.org/x/sys/unix"
)

const (
	// defaultBudget is how far a FIFO may grow if nobody says otherwise.
	defaultBudget = 64 << 20
	// maxPipe is more than the kernel makes of any pipe: its size is a power of two in 32 bits.
	maxPipe = 1 << 30
	// share is the part of a container's memory that may sit in its FIFOs: one in so many. The
	// kernel charges what is in a pipe to the control group of the one who wrote it.
	share = 8
	// step is how many times as large a FIFO gets at once.
	step = 4
	// wide is the size of a pipe that a relay moves output through.
	wide = 256 << 10
	// smallPipe is what a new pipe has, and no FIFO is made smaller than that (pipe(7)).
	smallPipe = 64 << 10
)

// Room is what the output FIFOs of one container, its init process's and its execs', may take up
// while no manager is there. It is immutable; nil stands for FIFOs that never grow.
type Room struct {
	presence *Presence
	each     int64 // for one FIFO
	all      int64 // for all together; 0: no limit
}

// NewRoom returns the room of a container. Each FIFO may grow to budget bytes, 0 being 64 MiB, and
// all together to an eighth of memory, the container's limit in bytes, if that is above 0. With a
// negative budget, or no presence, FIFOs do not grow. The kernel rounds sizes to powers of two.
func NewRoom(presence *Presence, budget, memory int64) *Room {
	r := &Room{presence: presence, each: min(budget, maxPipe), all: max(memory, 0) / share}
	if budget == 0 {
		r.each = defaultBudget
	}
	if presence == nil {
		r.each = -1
	}
	return r
}

// left returns how much more may be used if used is.
func (r *Room) left(used int64) int64 {
	if r.all == 0 {
		return maxPipe
	}
	return r.all - used
}

// base returns how large a FIFO may be that a process writes to directly, at any time: a container
// has two of them and they should leave some of its room free.
func (r *Room) base() int {
	if r == nil || r.all == 0 {
		return roomy
	}
	return int(min(roomy, max(floor(r.all/4), smallPipe)))
}

// passage returns how large the pipes should be through which a relay moves output. With those of
// 64 KiB that a process gets otherwise it would wake up for every 16 pages, which costs more than to
// move them; 256 KiB take a fifth of the time. An exec has two for each stream, and there may be many.
func (r *Room) passage() int {
	if r == nil || r.all == 0 {
		return wide
	}
	return int(min(wide, max(floor(r.all/64), smallPipe)))
}

// controller lends a descriptor, or fails once it is closed; a syscall.RawConn does it too.
type controller interface {
	Control(use func(fd uintptr)) error
}

// elastic is an output pipe that grows while nobody is there to read it and it is about to be full,
// and becomes as small as it was when it is empty again. After it has been added, only the
// presence's goroutine uses what the presence does not guard. A nil one does not grow.
type elastic struct {
	room *Room
	pipe controller
	own  bool // it has a reader of its own, a logger, which need not be there when a manager is
	size int  // of the pipe
	base int  // the size to return to; 0 unless we have made it grow
	held int  // what was in it at the last look
	grew bool // at the last look

	unread bool // its own reader is not there; guarded by the presence
}

// stretch has a client's FIFO, at one of whose ends we write, looked after until release.
func (r *Room) stretch(fifo controller) *elastic { return r.add(&elastic{room: r, pipe: fifo}) }

// track has a logger's pipe, of which we have the reading end, looked after until release; attended
// tells whether the logger is there, which it is at first.
func (r *Room) track(pipe controller) *elastic {
	return r.add(&elastic{room: r, pipe: pipe, own: true})
}

func (r *Room) add(e *elastic) *elastic {
	if r == nil || r.each < 0 {
		return nil
	}
	err := e.pipe.Control(func(fd uintptr) { e.size, _ = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0) })
	if err != nil || e.size <= 0 {
		return nil // not a pipe
	}
	r.presence.add(e)
	return e
}

// release ends what stretch and track began. It does not wait.
func (e *elastic) release() {
	if e != nil {
		e.room.presence.remove(e)
	}
}

// attended tells whether the pipe's own reader is there.
func (e *elastic) attended(there bool) {
	if e != nil {
		e.room.presence.attend(e, there)
	}
}

func (e *elastic) grown() bool { return e.base > 0 }

// look makes the pipe larger or smaller as need be, by no more than left, and tells whether
// anything has happened in it since the last look. One that is closed is left alone. The reading
// end does not tell whether a pipe is full; but a full one is always more than half full, unless
// somebody takes pains to splice less than pages into it.
func (e *elastic) look(away bool, left int64) (changed bool) {
	err := e.pipe.Control(func(fd uintptr) {
		size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		if err != nil {
			return
		}
		held, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil {
			return
		}
		changed = held != e.held || size != e.size
		e.size, e.held = size, held
		grew := e.grew
		e.grew = false
		switch {
		case away && (held > size/2 || !e.own && isFull(int(fd))):
			e.grow(fd, left)
			if grew && !e.grew {
				e.nudge(fd)
			}
		case e.grown() && (held == 0 || !away && held <= e.base):
			e.shrink(fd)
		case grew:
			e.nudge(fd)
		}
	})
	if err != nil {
		e.base = 0 // it is closed, and about to be removed
	}
	return changed || e.grew
}

// grow makes the pipe larger, as far as the room and the kernel allow. The kernel may refuse for
// want of memory, or, to a user without privileges, what is larger than fs.pipe-max-size; then it
// gets as much as the kernel grants.
func (e *elastic) grow(fd uintptr, left int64) {
	most := floor(min(e.room.each, int64(e.size)+left))
	for want := min(int64(e.size)*step, most); want > int64(e.size); want /= 2 {
		got, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, int(want))
		if err != nil {
			continue
		}
		if !e.grown() {
			e.base = e.size
		}
		e.size, e.grew = got, true
		return
	}
}

// shrink gives the room back. While bytes take up more than that the kernel refuses.
func (e *elastic) shrink(fd uintptr) {
	if got, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, e.base); err == nil {
		e.size, e.base = got, 0
	}
}

// nudge wakes the writers once more. Kernels from 5.8 on, until it was mended in 6.7, woke them a
// moment before there was room, so that they could go to sleep again.
func (e *elastic) nudge(fd uintptr) {
	_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, e.size) // without effect otherwise
}

// isFull tells whether a writer would have to wait. There may be fewer bytes in a pipe then than
// its size: each of its pages may be partly used.
func isFull(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLOUT == 0
}

// floor returns the largest power of two that is not above n, or 0.
func floor(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

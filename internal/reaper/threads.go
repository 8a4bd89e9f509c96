package reaper

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// shedLooks is how often it is looked whether the threads have ended, which takes microseconds.
const shedLooks = 300

// ShedThreads ends threads of ours that have nothing to do, until keep are left or the rest has to stay,
// and reports whether at most keep are left. Go starts one for each system call that takes long while
// others are under way, and keeps it for ever; which of its threads wait for something to do and which
// for the kernel's news is its own affair, and it may start a new one in the place of one that has
// ended. To try that again at once would be in vain, and each new thread costs 20 KiB that stay.
//
// Threads stay whose end the kernel would take for ours: those that have started a child that lives. It
// may be to die with us (contract T27), or have asked for that itself. So does the first one, which Go
// would only put to sleep; all that become our children by adoption are its own (find_new_reaper in
// kernel/exit.c).
func ShedThreads(keep int) bool {
	all := threads()
	shed(all-keep, all)
	// Not by a timer: Go may start a thread when that is due.
	for range shedLooks {
		if threads() <= keep {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// shed ends as many threads as surplus says, of all.
func shed(surplus, all int) {
	held := make(chan struct{})
	defer close(held)
	for range all {
		if surplus <= 0 {
			return
		}
		if shedOne(held) {
			surplus--
		}
	}
}

// shedOne ends the thread that we run on, and says so, or, if that has to stay, keeps it from being the
// next one, until held is closed. We go on, on another thread.
func shedOne(held <-chan struct{}) bool {
	ends := make(chan bool)
	go func() {
		runtime.LockOSThread()
		if !table.needs(unix.Gettid()) {
			ends <- true
			return // and the thread ends, since the goroutine is still locked to it
		}
		ends <- false
		<-held
		runtime.UnlockOSThread()
	}()
	return <-ends
}

// threads returns how many there are, by one call that is too short for Go to start another one
// meanwhile; 0 if the kernel does not tell, since nothing depends on it.
func threads() int {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/task", &st); err != nil {
		return 0
	}
	return int(st.Nlink) - 2 //nolint:gosec,unconvert // a link for each, and two as any directory has
}

// needs tells whether a thread has to live.
func (r *registry) needs(tid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return tid == os.Getpid() || r.parents[tid] > 0
}

// tie notes that a child is started by this thread, and returns it. The caller is locked to it.
func (r *registry) tie() (tid int) {
	tid = unix.Gettid()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parents[tid]++
	return tid
}

// untie is for a child that has ended, or was not started. tid is 0 for those that were adopted. mu is
// held.
func (r *registry) untie(tid int) {
	if r.parents[tid]--; r.parents[tid] <= 0 {
		delete(r.parents, tid)
	}
}

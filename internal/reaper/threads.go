package reaper

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ShedThreads ends threads of ours that have nothing to do, until about keep are left. Go starts one
// for each system call that takes long while others are under way, and keeps it for ever.
//
// Threads stay whose end the kernel would take for ours: those that have started a command that is to
// die with us and lives (contract T27). So does the first one, which Go would only put to sleep.
func ShedThreads(keep int) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // nothing depends on it
	}
	held := make(chan struct{})
	defer close(held)
	for range len(entries) - keep {
		shedOne(held)
	}
}

// shedOne ends one thread or, if that has to stay, keeps it from being the next one, until held is
// closed.
func shedOne(held <-chan struct{}) {
	found := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		stays := table.needs(unix.Gettid())
		found <- struct{}{}
		if !stays {
			return // and the thread ends, since the goroutine is still locked to it
		}
		<-held
		runtime.UnlockOSThread()
	}()
	<-found
}

// needs tells whether a thread has to live.
func (r *registry) needs(tid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return tid == os.Getpid() || r.parents[tid] > 0
}

// tie notes that a command that is to die with us is started by this thread, and returns it. The caller
// is locked to it.
func (r *registry) tie() (tid int) {
	tid = unix.Gettid()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parents[tid]++
	return tid
}

// untie is for a command that has ended, or was not started. tid is 0 for all others. mu is held.
func (r *registry) untie(tid int) {
	if r.parents[tid]--; r.parents[tid] <= 0 {
		delete(r.parents, tid)
	}
}

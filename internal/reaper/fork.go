package reaper

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Fork is the beginning of a child: until it runs its program it has copies of all our descriptors,
// those included that we have closed meanwhile.
type Fork struct {
	done chan struct{} // closed when syscall.ForkExec has returned, after the others have been set
	pid  int           // 0: there is no child
	at   time.Time     // when done was closed
}

// fork is syscall.ForkExec that Forking tells of.
func (r *registry) fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	f := &Fork{done: make(chan struct{})}
	r.mu.Lock()
	maps.DeleteFunc(r.forks, func(f *Fork, _ struct{}) bool { return f.old() })
	r.forks[f] = struct{}{}
	r.mu.Unlock()
	defer func() {
		f.pid, f.at = pid, time.Now()
		close(f.done)
	}()
	return syscall.ForkExec(path, argv, attr)
}

// Forking returns the forks that are not over, and forgets the others. syscall.ForkLock says less: it is free
// again when the child has left our memory, and the kernel closes the descriptors after that (execve(2),
// begin_new_exec in fs/exec.c).
func Forking() []*Fork {
	table.mu.Lock()
	forks := slices.Collect(maps.Keys(table.forks))
	table.mu.Unlock()
	over := make(map[*Fork]bool, len(forks))
	for _, f := range forks {
		over[f] = f.Over()
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	return slices.DeleteFunc(forks, func(f *Fork) bool {
		if over[f] {
			delete(table.forks, f)
		}
		return over[f]
	})
}

// forkLimit is how long a child may need from the end of ForkExec until it has let go of the last file.
const forkLimit = time.Second

// Over tells whether the child has let go of all that it had from us.
//
// ForkExec returns when the kernel closes a pipe in the child, which is one of many files: the kernel
// closes them on the way back from execve(2), one after the other, and may give the CPU to somebody else in
// between, the one whom the pipe has just woken above all. A child that sleeps, has been stopped or has
// ended is past that (there it only runs, or sleeps uninterruptibly). One that is never found like that
// is given forkLimit.
func (f *Fork) Over() bool {
	if !f.returned() {
		return false
	}
	if f.pid <= 0 || f.old() {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(f.pid) + "/stat")
	if err != nil {
		return true // it has been reaped
	}
	// "pid (name) state …"; the name may hold anything.
	_, state, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return !bytes.HasPrefix(state, []byte("R")) && !bytes.HasPrefix(state, []byte("D"))
}

// returned tells whether ForkExec has.
func (f *Fork) returned() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// old tells whether ForkExec has returned so long ago that the child is taken to be over.
func (f *Fork) old() bool {
	return f.returned() && time.Since(f.at) > forkLimit
}

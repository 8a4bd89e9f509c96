package reaper

import "syscall"

// fork is syscall.ForkExec that Forking tells of.
func (r *registry) fork(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	done := make(chan struct{})
	r.mu.Lock()
	r.forks[done] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.forks, done)
		r.mu.Unlock()
		close(done)
	}()
	return syscall.ForkExec(path, argv, attr)
}

// Forking returns a channel for each fork under way, to be closed when its child runs its program:
// until then the child has copies of all our descriptors, those included that we have closed
// meanwhile. syscall.ForkLock says less: it is free again when the child has left our memory, and
// the kernel closes the descriptors after that (execve(2), begin_new_exec in fs/exec.c).
func Forking() []<-chan struct{} {
	table.mu.Lock()
	defer table.mu.Unlock()
	forks := make([]<-chan struct{}, 0, len(table.forks))
	for done := range table.forks {
		forks = append(forks, done)
	}
	return forks
}

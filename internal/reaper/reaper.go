package reaper

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// table is the kernel's table of our children, as far as we know their names.
var table = registry{children: map[int]*Child{}, forks: map[chan struct{}]struct{}{}}

// registry knows the children by pid and counts the births under way.
type registry struct {
	once sync.Once
	err  error // of once

	// mu guards what follows. It also spans each wait4 and each kill, which never block here:
	// a pid that is in children has not been waited for, so it cannot belong to a stranger.
	mu       sync.Mutex
	children map[int]*Child
	births   int
	orphans  uint64
	forks    map[chan struct{}]struct{} // see Forking
}

// Init makes this process the one that orphaned descendants become children of
// (prctl(2), PR_SET_CHILD_SUBREAPER) and begins to collect exits. Descriptors that we inherited
// ourselves are marked close-on-exec, so that no child gets them, and signals that we were told to
// ignore are not ignored by children. Init is called before any other function of the package;
// later calls return what the first one did.
func Init() error {
	table.once.Do(func() {
		if err := sealDescriptors(); err != nil {
			table.err = err
			return
		}
		catchIgnored()
		// The handler first: a child that dies in between must wake us.
		wake := make(chan os.Signal, 1)
		signal.Notify(wake, unix.SIGCHLD)
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			signal.Stop(wake)
			table.err = fmt.Errorf("become a subreaper: %w", err)
			return
		}
		// This goroutine lives as long as the process. A signal that arrives while bury runs
		// leaves a token in wake, so no exit waits for the next one.
		go func() {
			for range wake {
				table.bury()
			}
		}()
	})
	return table.err
}

// Orphans returns how many nameless children have been reaped: what runtimes leave behind, and
// processes of containers that share our pid namespace.
func Orphans() uint64 {
	table.mu.Lock()
	defer table.mu.Unlock()
	return table.orphans
}

// Adopt runs birth, which starts a command that leaves a process to us and returns that
// process's pid, and makes the process a Child, even if it is dead by then. While birth runs no
// nameless child is reaped. Any number of births may overlap.
//
// It is an error if the pid is not that of a child of ours, or already has a name.
func Adopt(birth func() (pid int, err error)) (*Child, error) {
	table.begin()
	defer table.end()
	pid, err := birth()
	if err != nil {
		return nil, err
	}
	return table.name(pid)
}

func (r *registry) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.births++
}

// end also buries those who died nameless during the birth, since their SIGCHLD is long spent.
func (r *registry) end() {
	r.mu.Lock()
	r.births--
	r.mu.Unlock()
	r.bury()
}

// name gives the child pid a name. The caller's birth is still under way.
func (r *registry) name(pid int) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if pid <= 1 {
		return nil, fmt.Errorf("cannot adopt pid %d: no process of ours can have it; look at what the runtime wrote to its pid file", pid)
	}
	if r.children[pid] != nil {
		return nil, fmt.Errorf("cannot adopt pid %d: it already has an owner; does the runtime write the pid of another process?", pid)
	}
	c := newChild(pid)
	r.children[pid] = c
	if err := r.collect(pid); err != nil {
		delete(r.children, pid)
		return nil, fmt.Errorf("cannot adopt pid %d: it is not a child of the shim (%w); does the runtime write the pid of a process it did not start?", pid, err)
	}
	return c, nil
}

// bury reaps the dead: while a birth is under way only those with a name, otherwise all.
func (r *registry) bury() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.births == 0 {
		for r.next() {
		}
		return
	}
	for pid := range r.children {
		// ECHILD cannot be: who is in the table has not been waited for.
		_ = r.collect(pid)
	}
}

// next reaps one dead child, whoever it is, and tells whether there was one. mu is held.
func (r *registry) next() bool {
	pid, exit, err := wait(-1)
	if err != nil || pid == 0 {
		return false // ECHILD: there are no children at all
	}
	if c := r.children[pid]; c != nil {
		r.deliver(c, exit)
	} else {
		r.orphans++
	}
	return true
}

// collect reaps the child pid if it is dead. mu is held.
func (r *registry) collect(pid int) error {
	got, exit, err := wait(pid)
	if err == nil && got == pid {
		r.deliver(r.children[pid], exit)
	}
	return err
}

// deliver tells the waiters of c. mu is held.
func (r *registry) deliver(c *Child, exit Exit) {
	delete(r.children, c.pid)
	c.exit = exit
	close(c.done)
}

// wait is wait4(2) without blocking; it returns pid 0 if nobody is dead.
func wait(pid int) (int, Exit, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR { //nolint:errorlint // an errno as the kernel gave it
			continue
		}
		if err != nil || got == 0 {
			return 0, Exit{}, err
		}
		return got, exitOf(status), nil
	}
}

func exitOf(status syscall.WaitStatus) Exit {
	exit := Exit{Status: status.ExitStatus(), At: time.Now()}
	if status.Signaled() {
		exit.Signal = status.Signal()
		exit.Status = 128 + int(exit.Signal)
		exit.Core = status.CoreDump()
	}
	return exit
}

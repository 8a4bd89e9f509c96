package reaper

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// table is the kernel's table of our children, as far as we know their names.
var table = registry{
	children: map[int]*Child{}, births: map[uint64]struct{}{}, unclaimed: map[int]unclaimed{},
	forks: map[*Fork]struct{}{}, parents: map[int]int{}, patience: 100 * time.Millisecond,
}

// registry knows the children by pid, and the births under way.
type registry struct {
	once sync.Once
	err  error // of once

	// mu guards what follows. It also spans each wait4 and each kill, which never block here:
	// a pid that is in children has not been waited for, so it cannot belong to a stranger.
	mu        sync.Mutex
	children  map[int]*Child
	births    map[uint64]struct{} // under way, by number
	begun     uint64              // births so far
	unclaimed map[int]unclaimed   // nameless children that were reaped all the same, by pid
	since     time.Time           // a dead nameless child was first seen by bury; zero if there is none
	orphans   uint64
	forks     map[*Fork]struct{} // see Forking
	parents   map[int]int        // by thread: living children that it has started
	patience  time.Duration      // of bury with births under way; tests change it
}

// unclaimed is the exit of a child that one of the births before a given one may still name.
type unclaimed struct {
	exit   Exit
	before uint64
}

// Init makes this process the one that orphaned descendants become children of
// (prctl(2), PR_SET_CHILD_SUBREAPER) and begins to collect exits. Descriptors that we inherited
// ourselves are marked close-on-exec, so that no child gets them, and signals that we were told to
// ignore are not ignored by children. Start and UserNamespace call it if nobody has; an action that
// starts nothing is spared a thread and a few goroutines so. Later calls return what the first one did.
func Init() error {
	table.once.Do(func() {
		if err := sealDescriptors(); err != nil {
			table.err = err
			return
		}
		catchIgnored()
		// This first: a child that dies in between must wake us.
		if table.err = table.listen(); table.err != nil {
			return
		}
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			table.err = fmt.Errorf("become a subreaper: %w", err)
		}
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
// process's pid, and makes the process a Child, even if it is dead by then. While birth runs
// nameless children are reaped late, and their exits are kept. Any number of births may overlap.
//
// It is an error if the pid is not that of a child of ours, or already has a name.
func Adopt(birth func() (pid int, err error)) (*Child, error) {
	defer table.end(table.begin())
	pid, err := birth()
	if err != nil {
		return nil, err
	}
	return table.name(pid, 0)
}

func (r *registry) begin() (birth uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun++
	r.births[r.begun] = struct{}{}
	return r.begun
}

// end also buries those who died nameless during the birth, if bury has seen any: their SIGCHLD is long spent.
func (r *registry) end(birth uint64) {
	r.mu.Lock()
	delete(r.births, birth)
	oldest := r.begun + 1
	for under := range r.births {
		oldest = min(oldest, under)
	}
	for pid, u := range r.unclaimed {
		if u.before <= oldest {
			delete(r.unclaimed, pid)
		}
	}
	left := !r.since.IsZero()
	r.mu.Unlock()
	if left {
		r.bury()
	}
}

// name gives the child pid a name. The caller's birth is still under way. thread is the one that has
// started the child, or 0.
func (r *registry) name(pid, thread int) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.enter(pid, thread)
	if err != nil {
		r.untie(thread)
	}
	return c, err
}

// enter is name with mu held.
func (r *registry) enter(pid, thread int) (*Child, error) {
	if pid <= 1 {
		return nil, fmt.Errorf("cannot adopt pid %d: no process of ours can have it; look at what the runtime wrote to its pid file", pid)
	}
	if r.children[pid] != nil {
		return nil, fmt.Errorf("cannot adopt pid %d: it already has an owner; does the runtime write the pid of another process?", pid)
	}
	c := newChild(pid)
	c.thread = thread
	r.children[pid] = c
	err := r.collect(pid)
	// If it is a child now, an earlier one had the same pid.
	dead, known := r.unclaimed[pid]
	delete(r.unclaimed, pid)
	if err != nil && known {
		r.orphans--
		r.deliver(c, dead.exit)
		return c, nil
	}
	if err != nil {
		delete(r.children, pid)
		return nil, fmt.Errorf("cannot adopt pid %d: it is not a child of the shim (%w); does the runtime write the pid of a process it did not start?", pid, err)
	}
	return c, nil
}

// bury reaps the dead: while a birth is under way those with a name, otherwise all.
//
// That has a limit. As long as there is a zombie in a pid namespace the init process of that does not
// end (pid_namespaces(7)), and where many containers are probed there is always a birth under way. So
// the nameless are reaped after a while in any case, and their exits kept for who may name them yet. By
// then one of their pids could be given to another child of ours, which would be taken for the first if
// it died, too: that would take as many forks as there are pids.
func (r *registry) bury() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.births) == 0 {
		r.sweep()
		return
	}
	for pid := range r.children {
		// ECHILD cannot be: who is in the table has not been waited for.
		_ = r.collect(pid)
	}
	switch {
	case !someoneDead():
		r.since = time.Time{}
	case r.since.IsZero():
		r.since = time.Now()
		time.AfterFunc(r.patience, r.bury) // ends by itself
	case time.Since(r.since) >= r.patience:
		r.sweep()
	}
}

// sweep reaps all who are dead. mu is held.
func (r *registry) sweep() {
	for r.next() {
	}
	r.since = time.Time{}
}

// someoneDead tells whether a child waits to be reaped, and reaps it not.
func someoneDead() bool {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != unix.EINTR { //nolint:errorlint // an errno as the kernel gave it
			return err == nil && info.Signo != 0
		}
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
		return true
	}
	r.orphans++
	if len(r.births) > 0 {
		r.unclaimed[pid] = unclaimed{exit, r.begun + 1}
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
	r.untie(c.thread)
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

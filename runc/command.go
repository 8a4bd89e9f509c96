package runc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/proc"
	"holdfast/internal/reaper"
)

// command is one execution of the runtime's binary.
type command struct {
	verb    string
	exec    string   // for Call
	args    []string // what follows the verb
	bare    bool     // without the global flags
	stdin   *os.File // nil: /dev/null
	stdout  *os.File // nil: goes where stderr goes
	streams *Streams // nil, or the container's own, which the runtime gets as 0, 1 and 2
}

// capLimit bounds what is kept of the words of a runtime, which end in a ttrpc error: the frame
// of a response holds 4 MiB, and one that is too long costs the connection (contract T67).
const capLimit = 16 << 10

// killWait is how long a command that was sent SIGKILL may take to be reaped. Only a process in
// uninterruptible sleep or in a frozen cgroup takes more than moments.
const killWait = 10 * time.Second

// cleanupWait is how long a runtime may take to clean up when the process that it waited for has
// been killed. The runtimes tried took milliseconds.
const cleanupWait = 2 * time.Second

// execute runs c to its end. It is the only place where the runtime's binary is executed. The
// error is an *Error.
//
// When ctx ends before the command does, the command is killed with all that it has begun. Its
// process is reaped when execute returns, unless the error says that it does not die.
func (r *Runtime) execute(ctx context.Context, c command) error {
	if err := ctx.Err(); err != nil {
		return r.failure(c.verb, fmt.Errorf("not run, since the time for it is over: %w", err))
	}
	var out *buffer
	if c.streams == nil {
		var err error
		if out, err = newBuffer("output"); err != nil {
			return r.failure(c.verb, err)
		}
		defer out.Close()
	}
	log := r.openLog(c)
	began := time.Now()
	failed := true
	if r.Ended != nil {
		defer func() { r.Ended(Call{Verb: c.verb, Exec: c.exec, Began: began, Failed: failed}) }()
	}
	child, err := reaper.Start(&reaper.Command{
		Path:          r.binary(),
		Args:          append(r.global(c, log), c.args...),
		Env:           environment(),
		Dir:           r.dir(log),
		Files:         c.files(out),
		DieWithParent: true,
	})
	if err != nil {
		log.close(false)
		return r.failure(c.verb, err)
	}
	failure := r.judge(c, log, out, child, r.await(ctx, c.verb, child))
	failed = failure != nil
	log.close(failed)
	if !failed {
		return nil
	}
	failure.Took = time.Since(began)
	return failure
}

// judge returns what went wrong with a command that has ended or, if hang is not nil, was killed;
// nil if nothing did.
func (r *Runtime) judge(c command, log callLog, out *buffer, child *reaper.Child, hang error) *Error {
	if hang != nil {
		return &Error{Op: c.verb, ID: r.ID, Code: -1, Message: clean(hang.Error()), Kind: ErrHung, leftover: true}
	}
	exit := child.Exit()
	if exit.Status == 0 {
		return nil
	}
	msg := clean(reason(log, out, exit))
	return &Error{Op: c.verb, ID: r.ID, Code: exit.Status, Message: msg, Kind: classify(c.verb, msg), leftover: exit.Signal != 0}
}

// global returns everything up to and including the verb, in the order that wrappers around
// runc expect (contract 4.1, 17).
func (r *Runtime) global(c command, log callLog) []string {
	if c.bare {
		return []string{c.verb}
	}
	args := []string{"--root", r.Root, "--log", log.path, "--log-format", "json"}
	if r.SystemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	return append(args, c.verb)
}

// dir returns the command's working directory: the bundle, or the root directory if containerd
// has removed the bundle, since what is left of a container must still be deletable.
func (r *Runtime) dir(log callLog) string {
	if r.Bundle == "" || log.dir != "" { // where a file could be made there is a directory
		return r.Bundle
	}
	if _, err := os.Stat(r.Bundle); err != nil {
		return "/"
	}
	return r.Bundle
}

// files returns the command's descriptors 0, 1 and 2. What the container inherits must not be
// captured: it would fill our memory for as long as it lives.
func (c command) files(out *buffer) []*os.File {
	if s := c.streams; s != nil {
		return []*os.File{s.Stdin, s.Stdout, s.Stderr}
	}
	if c.stdout != nil {
		return []*os.File{c.stdin, c.stdout, out.File}
	}
	return []*os.File{c.stdin, out.File, out.File}
}

// await waits for the command's end. If ctx ends first, it kills the command and all that the
// command has begun, and returns what was seen of them.
func (r *Runtime) await(ctx context.Context, verb string, child *reaper.Child) error {
	began := time.Now()
	select {
	case <-child.Done():
		return nil
	case <-ctx.Done():
	}
	where := proc.Describe(proc.Family(child.Pid()))
	if within(child, 0) {
		return nil // it made it after all
	}
	took := time.Since(began).Round(time.Millisecond)
	name := filepath.Base(r.binary()) + " " + verb
	// Without its hook, or the process it was about to make a container, a runtime that was
	// waiting for these fails by itself and cleans up, as nobody else can.
	others := func() []proc.Process {
		return slices.DeleteFunc(proc.Family(child.Pid()), func(p proc.Process) bool { return p.Pid == child.Pid() })
	}
	if proc.SignalAll(others, unix.SIGKILL) == 0 || !within(child, cleanupWait) {
		_ = child.SignalGroup(unix.SIGKILL) // an error says that it has just ended
	}
	if within(child, killWait) {
		return fmt.Errorf("%q did not end within %v and was killed; %s; see what it waited for, then try again", name, took, where)
	}
	return fmt.Errorf("%q did not end within %v and does not die of SIGKILL; %s; free what it waits for, then try again",
		name, took, proc.Describe(proc.Family(child.Pid())))
}

// within tells whether a child ends in time.
func within(child *reaper.Child, limit time.Duration) bool {
	if limit == 0 {
		select {
		case <-child.Done():
			return true
		default:
			return false
		}
	}
	select {
	case <-child.Done():
		return true
	case <-time.After(limit):
		return false
	}
}

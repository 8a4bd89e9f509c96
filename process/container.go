package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/cgroup"
	"holdfast/internal/mount"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
	"holdfast/internal/wire"
	"holdfast/oom"
	"holdfast/runc"
	"holdfast/stdio"
)

// Runtime is the OCI runtime as far as a container needs it; *runc.Runtime is one.
type Runtime interface {
	Create(ctx context.Context, cfg runc.CreateConfig) (*reaper.Child, *os.File, error)
	Exec(ctx context.Context, cfg runc.ExecConfig) (*reaper.Child, *os.File, error)
	Restore(ctx context.Context, cfg runc.RestoreConfig) (*reaper.Child, *os.File, error)
	Start(ctx context.Context) error
	Kill(ctx context.Context, sig syscall.Signal, all bool) error
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Update(ctx context.Context, resources []byte) error
	Checkpoint(ctx context.Context, cfg runc.CheckpointConfig) error
	Delete(ctx context.Context, force bool) error
	Pids(ctx context.Context) ([]int, error)
}

// Events is where containers tell what happened to them. Append takes an event of
// containerd.events, keeps the order of the calls and never blocks.
type Events interface {
	Append(event wire.Message)
}

// Config describes a container to create.
type Config struct {
	ID, Namespace string
	Bundle        string        // absolute
	Rootfs        []mount.Mount // mounted onto <bundle>/rootfs; empty: somebody else sees to it
	Terminal      bool
	Stdin         string // as stdio.Config has them
	Stdout        string
	Stderr        string
	Checkpoint    string // directory of an image to restore from at Start; empty: none
	NoPivot       bool
	NoNewKeyring  bool
	IOUID, IOGID  int      // owner of the pipes that processes hold; 0: the container's root
	Relay         bool     // never let the init process hold the client's FIFOs themselves
	CRIUWork      string   // directory for CRIU's logs at restore; empty: work in the bundle
	LoggerDirs    []string // where loggers may come from, as stdio.Config has it
	// Budget is how far output may pile up for containers that have no annotation for it; "": 64Mi.
	Budget   string
	Presence *Presence // nil: it may not, beyond what the kernel gives
	Runtime  Runtime
	Events   Events
	Steps    *recorder.Recorder // of what is done; may be nil
	Log      *slog.Logger
	// Forget is called once the container has been deleted, after TaskDelete was logged and before
	// Delete returns: from then on nobody shall find it, and its id may be used again.
	Forget func()
}

// Container is an init process and the execs that were added to it. Its methods may be called
// concurrently; unless they say otherwise they need no turn and return at once.
//
// An exec id of "" means the init process.
type Container struct {
	cfg     Config
	init    *process
	gate    *gate
	slots   *slots
	spec    runc.Spec
	room    *stdio.Room
	mounted bool
	uid     int // owner of the pipes that processes hold
	gid     int
	delete  flight
	oomed   atomic.Pointer[oomKill] // the last; nil if there was none

	mu        sync.Mutex // guards what follows
	execs     map[string]*execProcess
	abandoned bool          // the exit is in the log, or will never be: no exec is added any more
	group     *cgroup.Group // nil before the start of a restored container, or without cgroups
	watch     *oom.Watch
	cut       func() // ends a restore; nil without one
}

// limits bound runtime commands, so that one that hangs is killed and reported. A start is not
// bounded, since it runs the container's hooks, until the init process has exited; writing or
// reading a checkpoint takes as long as the memory of the container is large.
var limits = map[Op]time.Duration{
	Exec: 2 * time.Minute, Pause: 2 * time.Minute, Resume: 2 * time.Minute, Update: 2 * time.Minute,
	Kill: 10 * time.Second, Delete: 2 * time.Minute, Checkpoint: 30 * time.Minute, Exit: 2 * time.Minute,
}

// detach returns a context for a runtime command. The context of a request bounds how long we
// wait, not whether we finish: half a runtime command helps nobody (contract T38).
func detach(ctx context.Context, op Op) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	if limit := limits[op]; limit > 0 {
		return context.WithTimeout(ctx, limit)
	}
	return context.WithCancel(ctx)
}

// deadLimit is how long a runtime command may go on when the init process that it is about has died. A
// start may run hooks that belong to it, and a checkpoint ends the init process itself before it is done:
// these have limits[Exit].
const deadLimit = 10 * time.Second

// whileAlive is detach for a command that the exit of the init process waits for, and with it everybody
// who waits for the task. So there is a limit when the process is dead.
func (c *Container) whileAlive(ctx context.Context, op Op) (context.Context, context.CancelFunc) {
	limited, cancel := detach(ctx, op)
	child := c.init.alive()
	if child == nil {
		return limited, cancel
	}
	left := deadLimit
	if op == Start || op == Checkpoint {
		left = limits[Exit]
	}
	go func() { // ends with cancel at the latest
		select {
		case <-child.Done():
		case <-limited.Done():
			return
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-limited.Done():
		}
	}()
	return limited, cancel
}

// ID returns the container's id.
func (c *Container) ID() string { return c.cfg.ID }

// Bundle returns the absolute path of the container's bundle.
func (c *Container) Bundle() string { return c.cfg.Bundle }

// reach remembers a step of the init process.
func (c *Container) reach(step recorder.Step) { c.cfg.Steps.Reach(step, c.cfg.ID, "") }

// find returns the process with that exec id, or the init process.
func (c *Container) find(exec string) (*process, error) {
	if exec == "" {
		return c.init, nil
	}
	e, err := c.exec(exec)
	if err != nil {
		return nil, err
	}
	return e.process, nil
}

func (c *Container) exec(id string) (*execProcess, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.execs[id]
	if e == nil {
		return nil, fmt.Errorf("process does not exist %s: %w", id, errdefs.ErrNotFound)
	}
	return e, nil
}

// Start starts the init process or an exec and returns its pid. It waits for the runtime.
func (c *Container) Start(ctx context.Context, exec string) (int, error) {
	if exec == "" {
		return c.startInit(ctx)
	}
	e, err := c.exec(exec)
	if err != nil {
		return 0, err
	}
	return c.startExec(ctx, e)
}

// State tells how the process stands. While the init process is paused, so is every exec
// (contract 3.2).
func (c *Container) State(exec string) (Info, error) {
	info := c.init.info()
	info.ID, info.Bundle, info.Terminal = c.cfg.ID, c.cfg.Bundle, c.cfg.Terminal
	info.Stdin, info.Stdout, info.Stderr = c.cfg.Stdin, c.cfg.Stdout, c.cfg.Stderr
	if exec == "" {
		return info, nil
	}
	e, err := c.exec(exec)
	if err != nil {
		return Info{}, err
	}
	init := info.State
	info = e.info()
	info.ID, info.Bundle, info.Terminal = exec, c.cfg.Bundle, e.cfg.Terminal
	info.Stdin, info.Stdout, info.Stderr = e.cfg.Stdin, e.cfg.Stdout, e.cfg.Stderr
	if info.State == Running && (init == Paused || init == Pausing) {
		info.State = init
	}
	return info, nil
}

// Wait blocks until the process has ended, however often it is asked, or ctx has. An exec that
// could not be started, or was deleted before it was, ends with the zero Exit.
func (c *Container) Wait(ctx context.Context, exec string) (reaper.Exit, error) {
	p, err := c.find(exec)
	if err != nil {
		return reaper.Exit{}, err
	}
	return p.wait(ctx)
}

// Resize changes the size of the process's console, also before its start. Without a console
// nothing happens.
func (c *Container) Resize(exec string, width, height uint16) error {
	p, err := c.find(exec)
	if err != nil {
		return err
	}
	return p.resizeTo(width, height)
}

// CloseStdin lets the process read the end of its input once all that clients have written is
// read and they have closed their ends. It may be called again, and before the start.
func (c *Container) CloseStdin(exec string) error {
	p, err := c.find(exec)
	if err != nil {
		return err
	}
	return p.closeStdin()
}

// Delete frees the init process, and with it the container, or an exec. It returns how the
// process ended. Callers who come while it is under way share its result, and it goes on when
// they give up.
func (c *Container) Delete(ctx context.Context, exec string) (pid int, exit reaper.Exit, err error) {
	if exec != "" {
		return c.deleteExec(ctx, exec)
	}
	exit, err = c.delete.join(ctx, c.deleteInit)
	return c.init.info().Pid, exit, err
}

// cgroup returns the container's control group, or nil.
func (c *Container) cgroup() *cgroup.Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.group
}

// Execs returns the ids of the execs that have not been deleted, in no order.
func (c *Container) Execs() []string {
	var ids []string
	for _, e := range c.all() {
		ids = append(ids, e.cfg.ID)
	}
	return ids
}

// all returns the execs that have not been deleted, in no order.
func (c *Container) all() []*execProcess {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*execProcess, 0, len(c.execs))
	for _, e := range c.execs {
		list = append(list, e)
	}
	return list
}

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
	"holdfast/internal/bundle"
	"holdfast/internal/cgroup"
	"holdfast/internal/mount"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
	"holdfast/oom"
	"holdfast/runc"
	"holdfast/stdio"
)

// createLimit bounds the runtime's create, which runs hooks too but is waited for by a client
// with a deadline of its own.
const createLimit = Exec

// groupLimit is how long the processes that a killed runtime has left may take to die.
const groupLimit = 2 * time.Second

// Create creates a container and its init process, which then waits for Start. If it fails,
// nothing is left and no event was logged. With a checkpoint nothing runs yet: the pid is 0.
//
// When ctx ends Create gives up, as long as it has not logged the event, and cuts the runtime short:
// so it should not be the context of a request, whose client may go away at any time.
func Create(ctx context.Context, cfg Config) (*Container, error) {
	c := &Container{cfg: cfg, gate: newGate(), slots: newSlots(), execs: map[string]*execProcess{}}
	c.init = newProcess("task "+cfg.ID, &initTable, cfg.Log)
	c.init.waited = func(op Op, began time.Time) { c.waited(op.String(), "", began) }
	if cfg.Checkpoint != "" {
		c.init.steps = &restoreTable
	}
	var undo undoList
	if err := c.create(ctx, &undo); err != nil {
		for _, err := range undo.run() {
			cfg.Log.Error("something is left of a failed create", "task", cfg.ID, "err", err)
		}
		return nil, err
	}
	return c, nil
}

// undoList is what has to be undone if a later step fails, in the order in which it was done.
type undoList []func() error

func (u *undoList) add(f func() error) { *u = append(*u, f) }

func (u *undoList) run() []error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		if err := (*u)[i](); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (c *Container) create(ctx context.Context, undo *undoList) error {
	var err error
	if c.spec, err = runc.ReadSpec(c.cfg.Bundle); err != nil {
		return fmt.Errorf("cannot create task %s: %w; give the bundle a config.json of the runtime specification: %w", c.cfg.ID, err, errdefs.ErrInvalidArgument)
	}
	c.uid, c.gid = c.cfg.IOUID, c.cfg.IOGID
	if c.uid == 0 && c.gid == 0 {
		// The runtime hands the streams on to the user; it can do that only with what is its own.
		c.uid, c.gid = c.spec.RootUID, c.spec.RootGID
	}
	if c.room, err = c.newRoom(); err != nil {
		return fmt.Errorf("cannot create task %s: %w", c.cfg.ID, err)
	}
	if err := forgetExit(c.cfg.Bundle); err != nil {
		return fmt.Errorf("create task %s: %w", c.cfg.ID, err)
	}
	if err := c.mountRootfs(ctx, undo); err != nil {
		return err
	}
	c.reach(recorder.CreateMounted)
	io, err := stdio.Open(ctx, c.streams())
	if err != nil {
		return fmt.Errorf("open stdio of task %s: %w", c.cfg.ID, err)
	}
	undo.add(io.Close)
	c.reach(recorder.CreateOpened)
	if err := c.init.attach(io); err != nil {
		return fmt.Errorf("set up stdio of task %s: %w", c.cfg.ID, err)
	}
	if c.cfg.Checkpoint == "" {
		if err := c.createInit(ctx, io, undo); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("create task %s: %w", c.cfg.ID, err)
	}
	c.cfg.Events.Append(c.created())
	c.reach(recorder.CreateLogged)
	if c.cfg.Checkpoint == "" {
		c.begin(c.init.alive())
	}
	return nil
}

// mountRootfs mounts what the manager asked for. An empty list means that somebody else takes
// care of the rootfs, which we then never touch (contract 6).
func (c *Container) mountRootfs(ctx context.Context, undo *undoList) error {
	if len(c.cfg.Rootfs) == 0 {
		return nil
	}
	rootfs := c.rootfs()
	if err := os.MkdirAll(rootfs, 0o711); err != nil {
		return fmt.Errorf("make rootfs of task %s: %w", c.cfg.ID, err)
	}
	if err := mount.All(c.cfg.Rootfs, rootfs); err != nil {
		return fmt.Errorf("mount rootfs of task %s: %w", c.cfg.ID, err)
	}
	c.mounted = true
	undo.add(func() error {
		ctx, cancel := detach(ctx, Delete)
		defer cancel()
		return mount.Unmount(ctx, rootfs)
	})
	return nil
}

func (c *Container) rootfs() string { return filepath.Join(c.cfg.Bundle, "rootfs") }

func (c *Container) streams() stdio.Config {
	return stdio.Config{
		Stdin: c.cfg.Stdin, Stdout: c.cfg.Stdout, Stderr: c.cfg.Stderr, Terminal: c.cfg.Terminal,
		UID: c.uid, GID: c.gid, ID: c.cfg.ID, Namespace: c.cfg.Namespace,
		// A confined process may not be allowed to open the client's FIFO again by /dev/stdout.
		Direct:     !c.cfg.Relay && !c.cfg.Terminal && c.spec.SELinuxLabel == "",
		LoggerDirs: c.cfg.LoggerDirs, Room: c.room, Log: c.cfg.Log,
	}
}

// createInit has the runtime create the init process.
func (c *Container) createInit(ctx context.Context, io *stdio.IO, undo *undoList) error {
	limited, cancel := context.WithTimeout(ctx, limits[createLimit])
	defer cancel()
	child, console, err := c.cfg.Runtime.Create(limited, runc.CreateConfig{
		Streams: streamsOf(io), Console: c.cfg.Terminal,
		NoPivot: c.cfg.NoPivot, NoNewKeyring: c.cfg.NoNewKeyring,
	})
	if err != nil {
		undo.add(func() error { return c.removeGroups(ctx, err) })
		return err
	}
	undo.add(func() error {
		limited, cancel := detach(ctx, Delete)
		defer cancel()
		return c.cfg.Runtime.Delete(limited, true)
	})
	c.reach(recorder.CreateRan)
	if err := connect(io, console); err != nil {
		return fmt.Errorf("connect stdio of task %s: %w", c.cfg.ID, err)
	}
	c.init.born(child)
	c.watchMemory(child)
	c.reach(recorder.CreateConnected)
	undo.add(func() error {
		c.watch.Close()
		return nil
	})
	return nil
}

// removeGroups removes the control groups that a runtime has made and noted nowhere, if the error that it
// has ended with says that it was killed. In them may be a process that ends because the runtime has.
func (c *Container) removeGroups(ctx context.Context, ended error) error {
	if failure := (*runc.Error)(nil); !errors.As(ended, &failure) || !failure.Unfinished() {
		return nil
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), groupLimit)
	defer cancel()
	return cgroup.Remove(limited, c.spec.CgroupsPath, func() []int { return bundle.Neighbours(c.cfg.Bundle) })
}

func streamsOf(io *stdio.IO) runc.Streams {
	stdin, stdout, stderr := io.Files()
	return runc.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr}
}

// connect begins the copying; console is nil without a terminal, and is taken over.
func connect(io *stdio.IO, console *os.File) error {
	if console != nil {
		return io.Attach(console)
	}
	return io.Start()
}

// watchMemory finds the control group of the init process and watches it for OOM kills. Neither
// is needed to run a container, so what goes wrong is logged and no more.
func (c *Container) watchMemory(child *reaper.Child) {
	group, err := cgroup.Of(child.Pid())
	if child.Signal(0) != nil && err == nil {
		err = errors.New("the init process is dead, and its pid may have been somebody else's by then")
	}
	if err != nil {
		c.cfg.Log.Warn("no control group: no stats, no OOM events", "task", c.cfg.ID, "err", err)
		return
	}
	if err := group.EnableControllers(); err != nil {
		c.cfg.Log.Debug("controllers not enabled", "task", c.cfg.ID, "err", err)
	}
	watch, err := oom.Open(group)
	if err != nil {
		c.cfg.Log.Warn("no OOM events", "task", c.cfg.ID, "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.group, c.watch = group, watch
}

// begin starts the OOM watch and the life of the init process. The event of its birth is logged.
func (c *Container) begin(child *reaper.Child) {
	if c.watch != nil {
		c.watch.Start(c.killedForMemory)
	}
	go c.live(child)
}

// created is the event that tells of the container.
func (c *Container) created() *api.TaskCreate {
	e := &api.TaskCreate{
		ContainerID: c.cfg.ID,
		Bundle:      c.cfg.Bundle,
		IO: &api.TaskIO{
			Stdin: c.cfg.Stdin, Stdout: c.cfg.Stdout, Stderr: c.cfg.Stderr, Terminal: c.cfg.Terminal,
		},
		Checkpoint: c.cfg.Checkpoint,
		Pid:        uint32(c.init.info().Pid), //nolint:gosec // pids are positive and below 2^22
	}
	for _, m := range c.cfg.Rootfs {
		e.Rootfs = append(e.Rootfs, &api.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return e
}

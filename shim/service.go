package shim

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"holdfast/internal/api"
	"holdfast/internal/mount"
	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
	"holdfast/process"
	"holdfast/runc"
)

// createPatience is how long a request waits for a Create of its container that is under way.
// Clients ask for a task while it is being created, and give up for good on NotFound
// (managers.md, surprise 3); State has no more than 2 s (contract 3.1).
const createPatience = 1500 * time.Millisecond

// Service is the task service: it finds the container of a request, makes one call and encodes
// what comes of it. It may be used concurrently.
type Service struct {
	namespace string
	events    process.Events
	log       *slog.Logger
	steps     *recorder.Recorder
	stop      chan struct{} // closed when Shutdown finds nothing left to do
	presence  *process.Presence
	grace     time.Duration // graceTime, except in tests

	mu         sync.Mutex // guards what follows
	containers map[string]*entry
	expected   map[string]*time.Timer // containers whose start has found us, not created yet
	clients    int                    // connections
	bundles    map[string]struct{}    // of all containers, as far as they may still be there
	leaving    bool                   // Shutdown was asked for, and all containers are unwanted
	minded     bool                   // mind runs
	persisting bool                   // persist runs
	stopping   bool                   // stop is closed
}

// entry is a container, or the place of one that is being created.
type entry struct {
	ready     chan struct{} // closed when container has been set, or the entry was removed
	undo      func()        // makes a Create that is under way give up
	container *process.Container
	unwanted  bool // its deletion is under way
}

// NewService returns a service without containers.
func NewService(namespace string, events process.Events, log *slog.Logger, steps *recorder.Recorder) *Service {
	return &Service{
		namespace: namespace, events: events, log: log, steps: steps,
		stop: make(chan struct{}), presence: process.NewPresence(), containers: map[string]*entry{},
		expected: map[string]*time.Timer{}, bundles: map[string]struct{}{}, grace: graceTime,
	}
}

// Stopped is closed when the manager has asked to shut down and no container is left.
func (s *Service) Stopped() <-chan struct{} { return s.stop }

// methods are the calls of the task service. The messages of versions 2 and 3 are the same byte
// for byte (contract 1.5), so one table serves both.
func (s *Service) methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"State":      method(s.State),
		"Create":     method(s.Create),
		"Start":      method(s.Start),
		"Delete":     method(s.Delete),
		"Pids":       method(s.Pids),
		"Pause":      method(s.Pause),
		"Resume":     method(s.Resume),
		"Checkpoint": method(s.Checkpoint),
		"Kill":       method(s.Kill),
		"Exec":       method(s.Exec),
		"ResizePty":  method(s.ResizePty),
		"CloseIO":    method(s.CloseIO),
		"Update":     method(s.Update),
		"Wait":       method(s.Wait),
		"Stats":      method(s.Stats),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}
}

// Register makes server answer both versions of the task API.
func (s *Service) Register(server *ttrpc.Server) {
	for _, version := range []int32{olderVersion, newestVersion} {
		server.Register(taskService(version), s.methods())
	}
}

func method[Request, Answer any](call func(context.Context, *Request) (*Answer, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		var request Request
		if err := unmarshal(&request); err != nil {
			return nil, err
		}
		return call(ctx, &request)
	}
}

// find returns the container, waiting a little for a Create of it that is under way.
func (s *Service) find(ctx context.Context, id string) (*process.Container, error) {
	s.mu.Lock()
	e := s.containers[id]
	s.mu.Unlock()
	if e == nil {
		return nil, errNotCreated
	}
	if err := e.await(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.container == nil || s.containers[id] != e {
		return nil, errNotCreated
	}
	return e.container, nil
}

// await waits for the end of a Create, but not for long.
func (e *entry) await(ctx context.Context) error {
	select {
	case <-e.ready:
		return nil
	default:
	}
	timer := time.NewTimer(createPatience)
	defer timer.Stop()
	select {
	case <-e.ready:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// errNotCreated has the words of containerd's own shim.
var errNotCreated = fmt.Errorf("container not created: %w", errdefs.ErrNotFound)

// reserve takes the place of a container that is about to be created. Shutdown counts it.
func (s *Service) reserve(id string, undo func()) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, fmt.Errorf("cannot create task %s: the shim is shutting down; start a new one: %w", id, errdefs.ErrUnavailable)
	}
	if s.containers[id] != nil {
		return nil, fmt.Errorf("task %s: %w", id, errdefs.ErrAlreadyExists)
	}
	e := &entry{ready: make(chan struct{}), undo: undo}
	s.containers[id] = e
	s.unexpect(id)
	s.leaving = false
	return e, nil
}

// settle ends a Create: c is nil if it failed.
func (s *Service) settle(id string, e *entry, c *process.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.container = c
	if c == nil {
		delete(s.containers, id)
		s.stopIfEmpty()
	}
	close(e.ready)
}

// forget removes a container that has been deleted.
func (s *Service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
	s.stopIfEmpty()
}

// unwant notes that the deletion of a container is under way. A Create of it that is under way
// is undone: whoever deletes it has given up waiting, and will not ask again (contract 3.4).
func (s *Service) unwant(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.containers[id]
	if e == nil {
		return
	}
	e.unwanted = true
	if e.container == nil {
		e.undo()
	}
}

// keep notes that the deletion of a container has failed. One that still runs is not to be deleted then,
// and we do not end before it does; another one is, if we have been told to end: see persist.
func (s *Service) keep(id string, runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.containers[id]
	if e == nil {
		return
	}
	e.unwanted = s.leaving && !runs
	s.leaving = e.unwanted
}

// runs tells whether the init process of a container runs the user's program.
func runs(c *process.Container) bool {
	info, err := c.State("")
	return err == nil && slices.Contains([]process.State{process.Running, process.Pausing, process.Paused}, info.State)
}

// maxID leaves room in a file name for what is put around an id, as in .exec.ID.json.
const maxID = 200

// checkID refuses an id that cannot be part of a file name. Managers have checked it already; this
// is for those that have not.
func checkID(what, id string) error {
	problem := ""
	switch {
	case id == "":
		return fmt.Errorf("cannot do this without the id of the %s: %w", what, errdefs.ErrInvalidArgument)
	case len(id) > maxID:
		problem = fmt.Sprintf("it has %d bytes; use at most %d", len(id), maxID)
	case id == "." || id == ".." || strings.ContainsAny(id, "/\x00"):
		problem = "it is part of file names; use one without slashes"
	case id[0] == '-':
		problem = "the runtime would take it for a flag"
	default:
		return nil
	}
	return fmt.Errorf("cannot use %q as the id of a %s: %s: %w", id, what, problem, errdefs.ErrInvalidArgument)
}

// Create creates a container. Whatever the request's context does, it is created wholly or not
// at all; only a Delete of it makes Create give up.
func (s *Service) Create(ctx context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	if err := checkID("task", r.GetID()); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(r.GetBundle()) {
		return nil, fmt.Errorf("cannot create task %s: bundle %q is not an absolute path: %w", r.GetID(), r.GetBundle(), errdefs.ErrInvalidArgument)
	}
	if path := r.GetCheckpoint(); path != "" && !filepath.IsAbs(path) {
		return nil, fmt.Errorf("cannot create task %s: checkpoint %q is not an absolute path: %w", r.GetID(), path, errdefs.ErrInvalidArgument)
	}
	ctx, undo := context.WithCancel(context.WithoutCancel(ctx))
	defer undo()
	e, err := s.reserve(r.GetID(), undo)
	if err != nil {
		return nil, err
	}
	c, err := s.createAndSettle(ctx, r, e)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("cannot create task %s: it was deleted meanwhile: %w", r.GetID(), errdefs.ErrAborted)
	}
	if err != nil {
		return nil, err
	}
	info, err := c.State("")
	if err != nil {
		return nil, err
	}
	s.log.Info("task created", "task", r.GetID(), "pid", info.Pid)
	return &api.CreateTaskResponse{Pid: number(info.Pid)}, nil
}

// createAndSettle ends the reservation e whatever happens: after a panic, too, the id is free again.
func (s *Service) createAndSettle(ctx context.Context, r *api.CreateTaskRequest, e *entry) (c *process.Container, err error) {
	defer func() { s.settle(r.GetID(), e, c) }()
	return s.create(ctx, r)
}

func (s *Service) create(ctx context.Context, r *api.CreateTaskRequest) (*process.Container, error) {
	id, bundle := r.GetID(), filepath.Clean(r.GetBundle())
	opts, err := DecodeOptions(r.GetOptions())
	if err != nil {
		return nil, fmt.Errorf("cannot create task %s: %w", id, err)
	}
	if info, err := os.Stat(bundle); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("cannot create task %s: bundle %s is not a directory; make it first: %w", id, bundle, errdefs.ErrInvalidArgument)
	}
	// Before anything is done: delete needs it to undo what we did.
	if err := SaveOptions(bundle, opts); err != nil {
		return nil, err
	}
	s.Inhabit(bundle)
	s.steps.Reach(recorder.CreateBegun, id, "")
	runtime := newRuntime(opts, s.namespace, id, bundle)
	runtime.Ended = func(c runc.Call) {
		s.steps.Passed(recorder.Span{
			Kind: recorder.Command, What: c.Verb, Task: id, Exec: c.Exec, Began: c.Began, Failed: c.Failed,
		})
	}
	return process.Create(ctx, process.Config{
		ID: id, Namespace: s.namespace, Bundle: bundle, Rootfs: mounts(r.GetRootfs()),
		Terminal: r.GetTerminal(), Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(),
		Checkpoint: r.GetCheckpoint(), CRIUWork: opts.GetCriuWorkPath(),
		NoPivot: opts.GetNoPivotRoot(), NoNewKeyring: opts.GetNoNewKeyring(),
		IOUID: int(opts.GetIoUid()), IOGID: int(opts.GetIoGid()), Relay: mayCheckpoint(),
		Budget: os.Getenv(process.BudgetVariable), Presence: s.presence,
		LoggerDirs: filepath.SplitList(os.Getenv(process.LoggerVariable)),
		Runtime:    runtime, Events: s.events, Steps: s.steps, Log: s.log,
		Forget: func() { s.forget(id) },
	})
}

// mayCheckpoint tells whether containers of this machine can be checkpointed. CRIU does not dump a
// process that holds a FIFO from outside its mount namespace, so such a machine's containers get
// pipes instead (docs/decisions/0004).
func mayCheckpoint() bool {
	_, err := reaper.LookPath("criu")
	return err == nil
}

func mounts(list []*api.Mount) []mount.Mount {
	out := make([]mount.Mount, 0, len(list))
	for _, m := range list {
		out = append(out, mount.Mount{Type: m.GetType(), Source: m.GetSource(), Target: m.GetTarget(), Options: m.GetOptions()})
	}
	return out
}

// number returns a pid, a status or the like for the wire; none is negative.
func number(n int) uint32 { return uint32(n) } //nolint:gosec // see above

// Start starts a process.
func (s *Service) Start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	pid, err := c.Start(ctx, r.GetExecID())
	if err != nil {
		return nil, err
	}
	return &api.StartResponse{Pid: number(pid)}, nil
}

// Kill sends a signal.
func (s *Service) Kill(ctx context.Context, r *api.KillRequest) (*api.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.Kill(ctx, r.GetExecID(), syscall.Signal(r.GetSignal()), r.GetAll()))
}

// Connect tells who we are, of any id. It fails only once the shim is ending, so that a start that
// finds our socket does not send its container to us.
func (s *Service) Connect(ctx context.Context, r *api.ConnectRequest) (*api.ConnectResponse, error) {
	if md, ok := ttrpc.GetMetadata(ctx); ok {
		if _, joins := md.Get(joinKey); joins {
			s.expect(r.GetID())
		}
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return nil, fmt.Errorf("cannot connect: the shim is shutting down; start a new one: %w", errdefs.ErrUnavailable)
	}
	e := s.containers[r.GetID()]
	var c *process.Container
	if e != nil {
		c = e.container
	}
	s.mu.Unlock()
	answer := &api.ConnectResponse{ShimPid: number(os.Getpid())}
	if c != nil {
		if info, err := c.State(""); err == nil {
			answer.TaskPid = number(info.Pid)
		}
	}
	return answer, nil
}

// done is the answer of calls that return nothing.
func done(err error) (*api.Empty, error) {
	if err != nil {
		return nil, err
	}
	return &api.Empty{}, nil
}

package process

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/reaper"
	"holdfast/internal/wire"
	"holdfast/runc"
)

// fakeRuntime is a runtime in memory. Each verb calls its hook, if there is one, and fails with
// what that returns.
type fakeRuntime struct {
	hooks map[string]func() error

	mu   sync.Mutex
	init func(reaper.Exit)
	dies map[string]func(reaper.Exit) // of execs
}

// fakePids gives out pids that cannot be those of real processes, so that their control groups
// are not found.
var fakePids atomic.Int64

func init() { fakePids.Store(1 << 28) }

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{hooks: map[string]func() error{}, dies: map[string]func(reaper.Exit){}}
}

func (f *fakeRuntime) call(verb string) error {
	f.mu.Lock()
	hook := f.hooks[verb]
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook()
}

// on sets the hook of a verb.
func (f *fakeRuntime) on(verb string, hook func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks[verb] = hook
}

// die ends the init process, or an exec.
func (f *fakeRuntime) die(exec string, status int) {
	f.mu.Lock()
	die := f.init
	if exec != "" {
		die = f.dies[exec]
	}
	f.mu.Unlock()
	die(reaper.Exit{Status: status, At: time.Now()})
}

func (f *fakeRuntime) bear(exec string) *reaper.Child {
	child, die := reaper.Fake(int(fakePids.Add(1)))
	f.mu.Lock()
	defer f.mu.Unlock()
	if exec == "" {
		f.init = die
	} else {
		f.dies[exec] = die
	}
	return child
}

func (f *fakeRuntime) Create(context.Context, runc.CreateConfig) (*reaper.Child, *os.File, error) {
	if err := f.call("create"); err != nil {
		return nil, nil, err
	}
	return f.bear(""), nil, nil
}

func (f *fakeRuntime) Restore(context.Context, runc.RestoreConfig) (*reaper.Child, *os.File, error) {
	if err := f.call("restore"); err != nil {
		return nil, nil, err
	}
	return f.bear(""), nil, nil
}

func (f *fakeRuntime) Exec(_ context.Context, cfg runc.ExecConfig) (*reaper.Child, *os.File, error) {
	if err := f.call("exec"); err != nil {
		return nil, nil, err
	}
	child := f.bear(cfg.ID)
	if err := f.call("exec born"); err != nil {
		return nil, nil, err
	}
	return child, nil, nil
}

func (f *fakeRuntime) Start(context.Context) error                      { return f.call("start") }
func (f *fakeRuntime) Kill(context.Context, syscall.Signal, bool) error { return f.call("kill") }
func (f *fakeRuntime) Pause(context.Context) error                      { return f.call("pause") }
func (f *fakeRuntime) Resume(context.Context) error                     { return f.call("resume") }
func (f *fakeRuntime) Update(context.Context, []byte) error             { return f.call("update") }
func (f *fakeRuntime) Delete(context.Context, bool) error               { return f.call("delete") }
func (f *fakeRuntime) Pids(context.Context) ([]int, error)              { return nil, f.call("ps") }
func (f *fakeRuntime) Checkpoint(context.Context, runc.CheckpointConfig) error {
	return f.call("checkpoint")
}

// fakeEvents is a log of events in memory.
type fakeEvents struct {
	mu   sync.Mutex
	list []wire.Message
}

func (e *fakeEvents) Append(event wire.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *fakeEvents) all() []wire.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]wire.Message(nil), e.list...)
}

// fixture is a container with a fake runtime.
type fixture struct {
	*Container
	runtime *fakeRuntime
	events  *fakeEvents
	forgot  atomic.Bool
}

const spec = `{"linux":{"namespaces":[{"type":"pid"}]}}`

func newFixture(t *testing.T, edit func(*Config)) (*fixture, error) {
	t.Helper()
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fixture{runtime: newFakeRuntime(), events: &fakeEvents{}}
	cfg := Config{
		ID: "c1", Namespace: "test", Bundle: bundle, Runtime: f.runtime, Events: f.events,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Forget: func() { f.forgot.Store(true) },
	}
	if edit != nil {
		edit(&cfg)
	}
	var err error
	f.Container, err = Create(t.Context(), cfg)
	return f, err
}

func mustCreate(t *testing.T) *fixture {
	t.Helper()
	f, err := newFixture(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustStart(t *testing.T) *fixture {
	t.Helper()
	f := mustCreate(t)
	if _, err := f.Start(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) addExec(t *testing.T, id string) {
	t.Helper()
	if err := f.Container.Exec(ExecConfig{ID: id, Process: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
}

var errFake = errors.New("fake failure")

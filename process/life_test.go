package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/reaper"
	"holdfast/internal/wire"
	"holdfast/runc"
)

// watchedEvents calls look before an event is logged.
type watchedEvents struct {
	Events
	look func(wire.Message)
}

func (w watchedEvents) Append(event wire.Message) {
	w.look(event)
	w.Events.Append(event)
}

// When an exit is logged it is on disk, and nobody who waits knows of it.
func TestExitIsLoggedBetweenRecordAndWaiters(t *testing.T) {
	var f *fixture
	exits := 0
	look := func(e wire.Message) {
		exit, ok := e.(*api.TaskExit)
		if !ok {
			return
		}
		exits++
		done, file := f.init.done, ExitFile
		if exit.GetID() != exit.GetContainerID() {
			done, file = f.execs["e1"].done, execExitFile("e1")
		}
		if _, err := os.Stat(filepath.Join(f.Bundle(), file)); err != nil {
			t.Errorf("the exit of %s is logged, but not recorded: %v", exit.GetID(), err)
		}
		select {
		case <-done:
			t.Errorf("waiters know the exit of %s before it is logged", exit.GetID())
		default:
		}
	}
	f, err := newFixture(t, func(c *Config) { c.Events = watchedEvents{c.Events, look} })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Start(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	f.addExec(t, "e1")
	if _, err := f.Start(t.Context(), "e1"); err != nil {
		t.Fatal(err)
	}
	f.runtime.die("e1", 1)
	f.must(t, "e1")
	f.runtime.die("", 2)
	f.must(t, "")
	if exits != 2 {
		t.Errorf("%d exits", exits)
	}
}

// However early a process dies, its start is logged before its exit.
func TestExitWaitsForTheTurn(t *testing.T) {
	for _, exec := range []string{"", "e1"} {
		t.Run(exec, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := mustCreate(t)
				f.addExec(t, "e1")
				verb, want := "start", "create exec-added start exit"
				if exec != "" {
					verb, want = "exec born", "create exec-added exec-started exit"
				}
				f.runtime.on(verb, func() error {
					f.runtime.die(exec, 1)
					synctest.Wait() // until the life has come as far as it can
					return nil
				})
				if _, err := f.Start(t.Context(), exec); err != nil {
					t.Fatal(err)
				}
				f.must(t, exec)
				if got := f.topics(t); got != want {
					t.Errorf("events %q, want %q", got, want)
				}
				if exec != "" {
					f.runtime.die("", 0)
				}
				synctest.Wait()
			})
		})
	}
}

// realExecs is a runtime whose execs are processes that end by a signal only.
type realExecs struct{ *fakeRuntime }

func (r realExecs) Exec(context.Context, runc.ExecConfig) (*reaper.Child, *os.File, error) {
	if err := reaper.Init(); err != nil {
		return nil, nil, err
	}
	if err := r.call("exec"); err != nil {
		return nil, nil, err
	}
	child, err := reaper.Start(&reaper.Command{Path: "sleep", Args: []string{"600"}, DieWithParent: true})
	return child, nil, err
}

// Without a pid namespace of its own a container's execs do not die with its init process by
// themselves, whenever they began.
func TestExecsAreKilledWhenInitDies(t *testing.T) {
	for name, late := range map[string]bool{"that run": false, "that are born later": true} {
		t.Run(name, func(t *testing.T) {
			f, err := newFixture(t, func(c *Config) {
				c.Runtime = realExecs{c.Runtime.(*fakeRuntime)}
				shared := []byte(`{"linux":{"namespaces":[]}}`)
				if err := os.WriteFile(filepath.Join(c.Bundle, "config.json"), shared, 0o600); err != nil {
					t.Fatal(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			f.addExec(t, "e1")
			if late {
				killed := make(chan struct{})
				f.runtime.on("kill", func() error { close(killed); return nil })
				f.runtime.on("exec", func() error { f.runtime.die("", 1); <-killed; return nil })
			}
			if _, err := f.Start(t.Context(), "e1"); err != nil {
				t.Fatal(err)
			}
			child := f.execs["e1"].alive()
			t.Cleanup(func() { _ = signalChild(child, killSignal) })
			if !late {
				f.runtime.die("", 1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if exit, err := f.Wait(ctx, "e1"); err != nil || exit.Signal != killSignal {
				t.Errorf("exit %+v, %v", exit, err)
			}
			_ = signalChild(child, killSignal) // or the exit of the container waits for it
			f.must(t, "")
		})
	}
}

// A pause lets an exec that is being started come up, for a while, and those that follow wait for it.
func TestPauseAndExecsThatStart(t *testing.T) {
	for takes, want := range map[time.Duration]string{
		time.Second: "early exec, pause, late exec",
		time.Minute: "pause, late exec, early exec",
	} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := mustStart(t)
				var mu sync.Mutex
				var order []string
				does := func(what string, takes time.Duration) func() error {
					return func() error {
						time.Sleep(takes)
						mu.Lock()
						defer mu.Unlock()
						order = append(order, what)
						return nil
					}
				}
				var all sync.WaitGroup
				start := func(id string) {
					all.Go(func() {
						if _, err := f.Start(t.Context(), id); err != nil {
							t.Errorf("start %s: %v", id, err)
						}
					})
					synctest.Wait()
				}
				f.addExec(t, "early")
				f.addExec(t, "late")
				f.runtime.on("pause", does("pause", time.Second))
				f.runtime.on("exec", does("early exec", takes))
				start("early")
				all.Go(func() {
					if err := f.Pause(t.Context()); err != nil {
						t.Errorf("pause: %v", err)
					}
				})
				synctest.Wait()
				f.runtime.on("exec", does("late exec", 0))
				start("late")
				all.Wait()
				if got := strings.Join(order, ", "); got != want {
					t.Errorf("what the runtime did: %s; want %s", got, want)
				}
				if n := len(f.slots.free); n != cap(f.slots.free) {
					t.Errorf("%d of %d slots are free", n, cap(f.slots.free))
				}
				for _, id := range []string{"early", "late", ""} {
					f.runtime.die(id, 0)
				}
				f.must(t, "")
			})
		})
	}
}

// Each exec gives back its slot, whether it could be started or not.
func TestSlotsAreGivenBack(t *testing.T) {
	f := mustStart(t)
	for i := range 2*cap(f.slots.free) + 1 {
		id := fmt.Sprint("e", i)
		f.addExec(t, id)
		f.failAll(i%2 == 0)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := f.Start(ctx, id); errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("exec %d: %v", i, err)
		}
	}
	for i := range 2*cap(f.slots.free) + 1 {
		if i%2 == 1 {
			f.runtime.die(fmt.Sprint("e", i), 0)
		}
	}
	f.runtime.die("", 0)
	f.must(t, "")
}

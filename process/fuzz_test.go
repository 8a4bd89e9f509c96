package process

import (
	"testing"

	"holdfast/internal/reaper"
	"holdfast/runc"
	"holdfast/test/order"
)

// model is what a container should be, without a turn, a gate or a lock in it.
type model struct {
	init  State
	execs map[string]State
}

// expect tells whether op on the process is allowed, and changes the model if so. failing means
// that the runtime fails.
func (m *model) expect(op Op, exec string, failing bool) bool {
	if exec != "" {
		return m.expectExec(op, exec, failing)
	}
	type change struct {
		from State
		op   Op
	}
	to, ok := map[change]State{
		{Created, Start}: Running, {Running, Pause}: Paused, {Paused, Resume}: Running,
		{Created, Update}: Created, {Running, Update}: Running, {Paused, Update}: Paused,
		{Running, Checkpoint}: Running, {Paused, Checkpoint}: Paused, {Stopped, Delete}: Deleted,
	}[change{m.init, op}]
	if !ok || failing {
		return false
	}
	m.init = to
	return true
}

func (m *model) expectExec(op Op, exec string, failing bool) bool {
	state, exists := m.execs[exec]
	switch {
	case op == Exec:
		if exists || m.init == Paused || m.init == Stopped || m.init == Deleted {
			return false
		}
		m.execs[exec] = Created
		return true
	case !exists:
		return false
	case op == Start && state == Created:
		// Once init has exited an exec is abandoned, which is the state of a failed start.
		if failing {
			m.execs[exec] = Failed
			return false
		}
		m.execs[exec] = Running
		return true
	case op == Delete && state != Running:
		delete(m.execs, exec)
		return true
	}
	return false
}

// exit ends a process that lives, and tells whether it did.
func (m *model) exit(exec string) bool {
	if exec == "" {
		return m.init == Created || m.init == Running || m.init == Paused
	}
	return m.execs[exec] == Running
}

// FuzzOperations does what the bytes say to a container, one after the other, and compares every
// answer with the model and the log with the rules of order. Each byte is an operation, a process
// and whether the runtime fails.
func FuzzOperations(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7})
	f.Add([]byte{0, 33, 32, 40, 41, 42, 0x80, 0x81, 34})
	f.Add([]byte{0, 9 + 16, 16, 64 + 9, 64, 8, 8 + 16, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 64 {
			return
		}
		fix := mustCreate(t)
		m := &model{init: Created, execs: map[string]State{}}
		for _, b := range script {
			doByte(t, fix, m, b)
		}
		finishLife(t, fix, m)
		order.Verify(t, fix.history(t), order.ExecsDeleted)
	})
}

// doByte does what one byte says.
func doByte(t *testing.T, f *fixture, m *model, b byte) {
	exec := []string{"", "e1", "e2", "e3"}[b>>4&3]
	failing := b&0x80 != 0
	f.failAll(failing)
	op := []Op{Start, Exec, Pause, Resume, Update, Checkpoint, Delete, Exit}[b&7]
	switch op {
	case Exit:
		endProcess(t, f, m, exec)
		return
	case Pause, Resume, Update, Checkpoint:
		exec = "" // done to the container
	}
	if op == Exec && exec == "" || op == Delete && exec == "" && m.init == Created {
		return // no such thing; and the delete of a created container waits for a real death
	}
	if m.init == Deleted {
		return // the service has forgotten the container
	}
	if failing && op == Delete && exec != "" {
		failing = false // the deletion of an exec runs no command
	}
	before := f.topics(t)
	err := f.apply(t, op, exec)
	if want := m.expect(op, exec, failing); (err == nil) != want {
		t.Fatalf("%s of %q: %v, want success %v; events %s", op, exec, err, want, before)
	}
}

func (f *fixture) failAll(failing bool) {
	for _, verb := range []string{"start", "exec", "pause", "resume", "update", "checkpoint", "delete"} {
		if failing {
			f.runtime.on(verb, func() error { return errFake })
		} else {
			f.runtime.on(verb, nil)
		}
	}
}

func (f *fixture) apply(t *testing.T, op Op, exec string) (err error) {
	ctx := t.Context()
	switch op {
	case Start:
		_, err = f.Start(ctx, exec)
	case Exec:
		err = f.Container.Exec(ExecConfig{ID: exec, Process: []byte("{}")})
	case Pause:
		err = f.Pause(ctx)
	case Resume:
		err = f.Resume(ctx)
	case Update:
		err = f.Update(ctx, nil)
	case Delete:
		_, _, err = f.Delete(ctx, exec)
	default:
		err = f.Checkpoint(ctx, runc.CheckpointConfig{})
	}
	return err
}

// endProcess lets a process die. The init process takes its execs with it, as the kernel or
// Kill would see to, and abandons those that were never started.
func endProcess(t *testing.T, f *fixture, m *model, exec string) {
	if !m.exit(exec) {
		return
	}
	if exec != "" {
		f.runtime.die(exec, 1)
		f.must(t, exec)
		m.execs[exec] = Stopped
		return
	}
	f.runtime.die("", 2)
	for id, state := range m.execs {
		if state == Running {
			f.runtime.die(id, 137)
			m.execs[id] = Stopped
		}
	}
	f.must(t, "")
	for id, state := range m.execs {
		f.must(t, id)
		if state == Created {
			m.execs[id] = Failed
		}
	}
	m.init = Stopped
	var none reaper.Exit
	if f.init.info().Exit == none {
		t.Fatal("no exit of init")
	}
}

// finishLife brings the container to its end.
func finishLife(t *testing.T, f *fixture, m *model) {
	f.failAll(false)
	endProcess(t, f, m, "")
	if m.init != Deleted {
		if _, _, err := f.Delete(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
}

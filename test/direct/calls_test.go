package direct

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

// createRequest is the request for the container whose bundle has been made.
func (l *lab) createRequest(id string, io *client.IO) *task.CreateTaskRequest {
	r := &task.CreateTaskRequest{ID: id, Bundle: filepath.Join(l.dir, id), Options: l.any()}
	if io != nil {
		r.Stdin, r.Stdout, r.Stderr, r.Terminal = io.Stdin, io.Stdout, io.Stderr, io.Terminal
	}
	return r
}

func (l *lab) create(id string, io *client.IO) (*task.CreateTaskResponse, error) {
	return l.Create(within(l.t), l.createRequest(id, io))
}

func (l *lab) mustCreate(id string, io *client.IO) int {
	l.t.Helper()
	a, err := l.create(id, io)
	if err != nil {
		l.t.Fatalf("create %s: %v", id, err)
	}
	return int(a.GetPid())
}

func (l *lab) start(id, exec string) (int, error) {
	a, err := l.Start(within(l.t), &task.StartRequest{ID: id, ExecID: exec})
	return int(a.GetPid()), err
}

func (l *lab) mustStart(id, exec string) int {
	l.t.Helper()
	pid, err := l.start(id, exec)
	if err != nil {
		l.t.Fatalf("start %s %s: %v", id, exec, err)
	}
	return pid
}

// run creates and starts a container.
func (l *lab) run(id string, io *client.IO) int {
	l.t.Helper()
	l.mustCreate(id, io)
	return l.mustStart(id, "")
}

// more makes a bundle for a further container of the shim, and runs it.
func (l *lab) more(id string, cfg client.BundleConfig) int {
	l.t.Helper()
	l.bundle(id, cfg)
	return l.run(id, nil)
}

func (l *lab) exec(id, exec string, cfg client.BundleConfig, io *client.IO) error {
	l.t.Helper()
	spec, err := client.ExecSpec(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	r := &task.ExecProcessRequest{ID: id, ExecID: exec, Spec: spec}
	if io != nil {
		r.Stdin, r.Stdout, r.Stderr, r.Terminal = io.Stdin, io.Stdout, io.Stderr, io.Terminal
	}
	_, err = l.Exec(within(l.t), r)
	return err
}

func (l *lab) mustExec(id, exec string, cfg client.BundleConfig, io *client.IO) {
	l.t.Helper()
	if err := l.exec(id, exec, cfg, io); err != nil {
		l.t.Fatalf("add exec %s to %s: %v", exec, id, err)
	}
}

// runExec adds an exec without streams and starts it.
func (l *lab) runExec(id, exec string, cfg client.BundleConfig) int {
	l.t.Helper()
	l.mustExec(id, exec, cfg, nil)
	return l.mustStart(id, exec)
}

func (l *lab) wait(id, exec string) int {
	l.t.Helper()
	a, err := l.Wait(within(l.t), &task.WaitRequest{ID: id, ExecID: exec})
	if err != nil {
		l.t.Fatalf("wait %s %s: %v", id, exec, err)
	}
	return int(a.GetExitStatus())
}

func (l *lab) status(id, exec string) tasktypes.Status {
	l.t.Helper()
	a, err := l.State(within(l.t), &task.StateRequest{ID: id, ExecID: exec})
	if err != nil {
		l.t.Fatalf("state %s %s: %v", id, exec, err)
	}
	return a.GetStatus()
}

func (l *lab) kill(id, exec string, signal uint32) {
	l.t.Helper()
	if _, err := l.Kill(within(l.t), &task.KillRequest{ID: id, ExecID: exec, Signal: signal}); err != nil {
		l.t.Fatalf("kill %s %s: %v", id, exec, err)
	}
}

func (l *lab) mustDelete(id, exec string) *task.DeleteResponse {
	l.t.Helper()
	a, err := l.Delete(within(l.t), &task.DeleteRequest{ID: id, ExecID: exec})
	if err != nil {
		l.t.Fatalf("delete %s %s: %v", id, exec, err)
	}
	return a
}

// finish kills a container and deletes it.
func (l *lab) finish(id string) *task.DeleteResponse {
	l.t.Helper()
	l.kill(id, "", 9)
	l.wait(id, "")
	return l.mustDelete(id, "")
}

func (l *lab) tryPause(id string) error {
	_, err := l.Pause(within(l.t), &task.PauseRequest{ID: id})
	return err
}

func (l *lab) pause(id string) {
	l.t.Helper()
	if err := l.tryPause(id); err != nil {
		l.t.Fatalf("pause %s: %v", id, err)
	}
}

// event waits for an event; past ones count.
func (l *lab) event(match func(client.Event) bool) client.Event {
	l.t.Helper()
	e, err := l.Events.Wait(within(l.t), match)
	if err != nil {
		l.t.Fatal(err)
	}
	return e
}

// count returns how many of the events match.
func count(events []client.Event, match func(client.Event) bool) int {
	n := 0
	for _, e := range events {
		if match(e) {
			n++
		}
	}
	return n
}

// io makes the FIFOs of a process.
func (l *lab) io(name string, cfg client.IOConfig) *client.IO {
	l.t.Helper()
	dir := filepath.Join(l.dir, "io")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	io, err := client.OpenIO(dir, name, cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(io.Close)
	return io
}

// output waits for the end of a stream and returns it.
func (l *lab) output(o *client.Output) string {
	l.t.Helper()
	select {
	case <-o.Done():
	case <-time.After(limit):
		l.t.Fatalf("the stream does not end; so far it said %q", o.String())
	}
	return o.String()
}

// sh is a process that runs a shell script.
func sh(script string) client.BundleConfig {
	return client.BundleConfig{Args: []string{"/bin/sh", "-c", script}}
}

// sleeper is a process that does nothing, for long.
func sleeper() client.BundleConfig { return client.BundleConfig{Args: []string{"/bin/sleep", "1000"}} }

// fake are the options of a container that is run by test/fakerunc.
func fake() *options.Options { return &options.Options{BinaryName: fakeRuntime} }

// step is what a verb of fakerunc shall do, see its script.
type step map[string]any

// script tells the runtime of a container what to do from now on. Each of its calls reads it.
func (l *lab) script(id string, verbs map[string]step) {
	l.t.Helper()
	content, err := json.Marshal(verbs)
	if err != nil {
		l.t.Fatal(err)
	}
	path := filepath.Join(l.dir, id, "fakerunc.json")
	// Replaced in one step: a call may be reading it.
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		l.t.Fatal(err)
	}
}

// reached waits until a verb of a fake runtime has come to a point at which it is told to pause.
func (l *lab) reached(id, verb, point string) {
	l.t.Helper()
	l.eventually(verb+" of "+id+" is at "+point, func() bool {
		_, err := os.Stat(filepath.Join(l.dir, id, verb+"."+point+".reached"))
		return err == nil
	})
}

// release lets a verb go on.
func (l *lab) release(id, verb, point string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, id, verb+"."+point+".go"), nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// census tells what the shim holds.
func (l *lab) census() leak.Census {
	l.t.Helper()
	c, err := leak.Process(l.pid())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// isShim tells whether a process runs the shim's binary.
func isShim(pid int) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && path == shimBinary
}

// read returns the content of a file.
func (l *lab) read(path string) string {
	l.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(content)
}

// eventually polls until what holds is true.
func (l *lab) eventually(what string, holds func() bool) {
	l.t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// is tells whether err is of that kind, and says what it is otherwise.
func is(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: error %v, want kind %v", what, err, kind)
	}
}

package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/client"
)

// bad is one call with bad input, of a shim that has a good container, c1, too.
type bad struct {
	name string
	do   func(l *lab) error
	code codes.Code
	text string // is in the message
}

func TestBadInputIsRefusedAndHarmsNobody(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.history = firstLives
	c1 := l.run("c1", nil)
	var log strings.Builder
	for _, cases := range [][]bad{wireCases, idCases, bundleCases, runtimeCases, streamCases, execCases, callCases} {
		for _, c := range cases {
			err := c.do(l)
			code, text := status.Code(err), ""
			if err != nil {
				text = err.Error()
			}
			fmt.Fprintf(&log, "%-44s %-18s %.300q\n", c.name, code, text)
			if code != c.code || !strings.Contains(text, c.text) {
				t.Errorf("%s: %s %.1000q, want %s %q", c.name, code, text, c.code, c.text)
			}
			if err != nil && (len(text) < 5 || len(text) > 17<<10) {
				t.Errorf("%s: the message has %d bytes", c.name, len(text))
			}
			l.unharmed(c.name, c1)
		}
	}
	t.Logf("what bad input is answered\n%s", log.String())
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	for _, e := range l.Events.All() {
		if e.Task() != "c1" {
			t.Errorf("event %s of a container that was never created: %s", e.Topic, e.Task())
		}
	}
}

// unharmed checks that the connection, the shim and its good container are there.
func (l *lab) unharmed(after string, pid int) {
	l.t.Helper()
	a, err := l.State(within(l.t), &task.StateRequest{ID: "c1"})
	if err != nil {
		l.t.Fatalf("after %s: state of c1: %v", after, err)
	}
	if a.GetStatus() != tasktypes.Status_RUNNING || int(a.GetPid()) != pid {
		l.t.Fatalf("after %s: c1 is %s with pid %d", after, a.GetStatus(), a.GetPid())
	}
	if _, err := l.Kill(within(l.t), &task.KillRequest{ID: "c1", Signal: 0}); err != nil {
		l.t.Fatalf("after %s: init of c1: %v", after, err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "c1", "rootfs", "proc")); err != nil {
		l.t.Fatalf("after %s: rootfs of c1: %v", after, err)
	}
}

// refusedCreate makes a bundle, lets edit spoil it or the request, and creates the container.
// Should that succeed, the container is removed again.
func refusedCreate(edit func(l *lab, r *task.CreateTaskRequest)) func(l *lab) error {
	return func(l *lab) error {
		l.t.Helper()
		dir := l.bundle("bad", sleeper())
		defer l.forget("bad", dir)
		r := l.createRequest("bad", nil)
		edit(l, r)
		_, err := l.Create(within(l.t), r)
		if err == nil {
			l.finish(r.GetID())
		}
		return err
	}
}

// forget removes the bundle of a container that was not created.
func (l *lab) forget(id, dir string) {
	l.t.Helper()
	l.cleanUp(id)
	l.ids = l.ids[:len(l.ids)-1]
	if err := os.RemoveAll(dir); err != nil {
		l.t.Error(err)
	}
}

const v3 = "containerd.task.v3.Task"

var wireCases = []bad{
	{"unknown service", func(l *lab) error { return l.send(l.request("containerd.task.v9.Task", "State", nil)) }, codes.Unimplemented, "service containerd.task.v9.Task"},
	{"sandbox service", func(l *lab) error {
		return l.send(l.request("containerd.runtime.sandbox.v1.Sandbox", "CreateSandbox", nil))
	}, codes.Unimplemented, "Sandbox"},
	{"unknown method", func(l *lab) error { return l.send(l.request(v3, "Frobnicate", nil)) }, codes.Unimplemented, "Frobnicate"},
	{"no method", func(l *lab) error { return l.send(l.request(v3, "", nil)) }, codes.Unimplemented, ""},
	{"payload that is no message", func(l *lab) error { return l.send(l.request(v3, "State", []byte{0xff, 0xff, 0xff})) }, codes.Internal, "unmarshal"},
	{"id that is not UTF-8", func(l *lab) error {
		return l.send(l.request(v3, "Create", []byte{0x0a, 2, 0xff, 0xfe}))
	}, codes.Internal, "UTF-8"},
	{"request that is no message", func(l *lab) error {
		return l.send(frame(4, 1, requestFrame, []byte{0xff, 0xff, 0xff, 0xff}))
	}, codes.InvalidArgument, "unmarshal"},
	{"message of 5 MiB", func(l *lab) error {
		return l.send(frame(5<<20, 1, requestFrame, make([]byte, 5<<20)))
	}, codes.ResourceExhausted, "message length"},
	{"message of 4 GiB that does not come", func(l *lab) error { return l.send(frame(1<<32-1, 1, requestFrame, make([]byte, 100))) }, silent1, ""},
	{"stream of an even number", func(l *lab) error { return l.send(frame(0, 2, requestFrame, nil)) }, codes.InvalidArgument, ""},
	{"data of a stream that is not there", func(l *lab) error { return l.send(frame(4, 1, dataFrame, make([]byte, 4))) }, codes.InvalidArgument, ""},
	{"frame of an unknown type", func(l *lab) error { return l.send(frame(4, 1, 99, make([]byte, 4))) }, silent1, ""},
	{"half a header", func(l *lab) error { return l.send([]byte{0, 0}) }, silent1, ""},
	{"a page of HTTP", func(l *lab) error { return l.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) }, silent1, ""},
}

// silent1 is the code of silent.
var silent1 = status.Code(silent)

var idCases = []bad{
	{"create without an id", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.ID = "" }), codes.InvalidArgument, "id"},
	{"create ..", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.ID = ".." }), codes.InvalidArgument, `".."`},
	{"create with a slash", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.ID = "a/b" }), codes.InvalidArgument, `"a/b"`},
	{"create with a NUL", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.ID = "a\x00b" }), codes.InvalidArgument, `"a\x00b"`},
	{"create with a flag", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.ID = "--force" }), codes.InvalidArgument, `"--force"`},
	{"create with an id of 300 bytes", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.ID = strings.Repeat("x", 300) }), codes.InvalidArgument, "xxx"},
	{"create again", func(l *lab) error {
		_, err := l.create("c1", nil)
		return err
	}, codes.AlreadyExists, "task c1: already exists"},
	{"state of an unknown id", func(l *lab) error {
		_, err := l.State(within(l.t), &task.StateRequest{ID: "nobody"})
		return err
	}, codes.NotFound, noTask},
	{"state of no id", func(l *lab) error {
		_, err := l.State(within(l.t), &task.StateRequest{})
		return err
	}, codes.NotFound, noTask},
}

var bundleCases = []bad{
	{"bundle is no absolute path", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.Bundle = "bad" }), codes.InvalidArgument, `"bad" is not an absolute path`},
	{"bundle is missing", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.Bundle = "/no/such/bundle" }), codes.InvalidArgument, "/no/such/bundle"},
	{"bundle is a file", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Bundle += "/config.json" }), codes.InvalidArgument, "is not a directory"},
	{"checkpoint is no absolute path", refusedCreate(func(_ *lab, r *task.CreateTaskRequest) { r.Checkpoint = "../image" }), codes.InvalidArgument, `"../image" is not an absolute path`},
	{"config.json is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.write(filepath.Join(r.Bundle, "config.json"), "", 0)
	}), codes.InvalidArgument, "config.json"},
	{"config.json is not JSON", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.write(filepath.Join(r.Bundle, "config.json"), "{not json", 0o600)
	}), codes.InvalidArgument, "config.json"},
	{"config.json is empty", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.write(filepath.Join(r.Bundle, "config.json"), "", 0o600)
	}), codes.InvalidArgument, "config.json"},
	{"config.json is a list", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.write(filepath.Join(r.Bundle, "config.json"), "[]", 0o600)
	}), codes.InvalidArgument, "config.json"},
	{"config.json is a FIFO", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		path := filepath.Join(r.Bundle, "config.json")
		l.write(path, "", 0)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}), codes.InvalidArgument, "not a regular file"},
	{"config.json is a link to a device", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		path := filepath.Join(r.Bundle, "config.json")
		l.write(path, "", 0)
		if err := os.Symlink("/dev/zero", path); err != nil {
			l.t.Fatal(err)
		}
	}), codes.InvalidArgument, "escapes"},
	{"options of an unknown type", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		r.Options = pack(l.t, &task.StateRequest{ID: "x"})
	}), codes.InvalidArgument, "containerd.task.v3.StateRequest"},
	{"options of the runtime v1", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		r.Options = pack(l.t, &options.Options{Root: "x"})
		r.Options.TypeUrl = "containerd.linux.runc.CreateOptions"
	}), codes.InvalidArgument, "containerd.linux.runc.CreateOptions"},
	{"options that cannot be decoded", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		r.Options = pack(l.t, &options.Options{})
		r.Options.Value = []byte{0xff, 0xff}
	}), codes.InvalidArgument, "options"},
}

// write makes a file, or removes it if it has no mode.
func (l *lab) write(path, content string, mode os.FileMode) string {
	l.t.Helper()
	err := os.Remove(path)
	if mode != 0 {
		err = os.WriteFile(path, []byte(content), mode)
	}
	if err == nil && mode != 0 {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return path
}

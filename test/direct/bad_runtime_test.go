package direct

import (
	"path/filepath"
	"strings"
	"syscall"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
)

// withRuntime sets the runtime of a container.
func withRuntime(l *lab, r *task.CreateTaskRequest, binary string) {
	r.Options = pack(l.t, &options.Options{BinaryName: binary})
}

// byScript makes a shell script the runtime of a container.
func byScript(script string) func(l *lab) error {
	return refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		withRuntime(l, r, l.write(filepath.Join(r.Bundle, "my-runtime"), "#!/bin/sh\n"+script, 0o700))
	})
}

// onTerminal is byScript for a container with a terminal: only then what the runtime says on its
// standard error is heard; else that is the container's.
func onTerminal(script string) func(l *lab) error {
	return refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		withRuntime(l, r, l.write(filepath.Join(r.Bundle, "my-runtime"), "#!/bin/sh\n"+script, 0o700))
		r.Terminal = true
	})
}

// toLog puts its arguments into the log file of the runtime's command line.
const toLog = `while [ "$1" != --log ]; do shift; done; printf '%b' '{"level":"error","msg":"MSG"}' >"$2"; exit 1`

var runtimeCases = []bad{
	{"runtime is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { withRuntime(l, r, "no-runc") }), codes.Unknown, `"no-runc": executable file not found in $PATH`},
	{"runtime's path is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { withRuntime(l, r, "/no/such/runc") }), codes.Unknown, `"/no/such/runc"`},
	{"runtime is not executable", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		withRuntime(l, r, l.write(filepath.Join(r.Bundle, "my-runtime"), "#!/bin/sh\n", 0o600))
	}), codes.Unknown, `permission denied`},
	{"runtime is a directory", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { withRuntime(l, r, "/tmp") }), codes.Unknown, `"/tmp"`},
	{"runtime is no program", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		withRuntime(l, r, l.write(filepath.Join(r.Bundle, "my-runtime"), "hello\n", 0o700))
	}), codes.Unknown, "exec format error"},
	{"runtime says nothing", byScript("exit 7"), codes.Unknown, "exit status 7"},
	{"runtime is killed", byScript("kill -9 $$"), codes.Unknown, "signal: killed"},
	{"runtime writes no pid file", byScript("exit 0"), codes.Unknown, "pid file"},
	{"runtime's error is not UTF-8", onTerminal(`printf 'bad \377\376 bytes' >&2; exit 1`), codes.Unknown, "OCI runtime create failed: bad \uFFFD bytes"},
	{"runtime's log is not UTF-8", byScript(strings.Replace(toLog, "MSG", `bad \0377\0376 bytes`, 1)), codes.Unknown, "bytes"},
	{"runtime's error has 100 KiB", onTerminal("head -c 102400 /dev/zero | tr '\\000' x >&2; exit 1"), codes.Unknown, "xxx"},
	{"runtime's log has 100 KiB", byScript(strings.Replace(toLog, "MSG", strings.Repeat("y", 100<<10), 1)), codes.Unknown, "yyy"},
	{"runtime's error ends a connection", onTerminal("echo ttrpc: closed >&2; exit 1"), codes.Unknown, "ttrpc: closed."},
	{"entrypoint is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.bundleAgain("bad", client.BundleConfig{Args: []string{"/no/such/program"}})
	}), codes.Unknown, `OCI runtime create failed: runc create failed: unable to start container process: exec: "/no/such/program": stat /no/such/program: no such file or directory`},
	{"entrypoint is a directory", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.bundleAgain("bad", client.BundleConfig{Args: []string{"/etc"}})
	}), codes.Unknown, `exec: "/etc"`},
	{"entrypoint is not in the path", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		l.bundleAgain("bad", client.BundleConfig{Args: []string{"no-such-program"}})
	}), codes.Unknown, `executable file not found in $PATH`},
	{"rootfs of an unknown type", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		r.Rootfs = []*types.Mount{{Type: "nosuchfs", Source: "x"}}
	}), codes.Unknown, "nosuchfs"},
	{"rootfs source is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		r.Rootfs = []*types.Mount{{Type: "bind", Source: "/no/such/source", Options: []string{"rbind"}}}
	}), codes.Unknown, "/no/such/source"},
	{"rootfs that the manager has not prepared", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		r.Rootfs = []*types.Mount{{Type: "bind", Source: "/usr", Options: []string{"X-containerd.mkdir.path=x"}}}
	}), codes.InvalidArgument, "X-containerd."},
}

// bundleAgain makes the bundle of a container once more.
func (l *lab) bundleAgain(id string, cfg client.BundleConfig) {
	l.t.Helper()
	l.bundle(id, cfg)
	l.ids = l.ids[:len(l.ids)-1]
}

var streamCases = []bad{
	{"stdout is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdout = "/no/such/fifo" }), codes.InvalidArgument, "/no/such/fifo"},
	{"stderr is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stderr = "/no/such/fifo" }), codes.InvalidArgument, "/no/such/fifo"},
	{"stdin is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdin = "/no/such/fifo" }), codes.InvalidArgument, "/no/such/fifo"},
	{"stdout is a directory", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdout = "/tmp" }), codes.InvalidArgument, "/tmp"},
	{"stdout is no absolute path", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdout = "out" }), codes.InvalidArgument, `out`},
	{"stdout of an unknown scheme", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdout = "gopher:///x" }), codes.InvalidArgument, "unknown STDIO scheme"},
	{"stderr of an unknown scheme", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stderr = "gopher:///x" }), codes.InvalidArgument, "unknown STDIO scheme"},
	{"logger is missing", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdout = "binary:///no/such/logger" }), codes.Unknown, "/no/such/logger"},
	{"logger dies before it is ready", refusedCreate(func(l *lab, r *task.CreateTaskRequest) { r.Stdout = "binary-v2:///bin/false" }), codes.Unknown, "/bin/false"},
	{"terminal in the request only", refusedCreate(func(l *lab, r *task.CreateTaskRequest) {
		path := filepath.Join(r.Bundle, "fifo")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			l.t.Fatal(err)
		}
		r.Stdout, r.Terminal = path, true
	}), codes.Unknown, "OCI runtime create failed: "},
}

// refusedExec adds an exec with a bad request to c1.
func refusedExec(r *task.ExecProcessRequest) func(l *lab) error {
	return func(l *lab) error {
		l.t.Helper()
		r.ID = "c1"
		_, err := l.Exec(within(l.t), r)
		return err
	}
}

// refusedStart adds an exec to c1 that cannot be started.
func refusedStart(cfg client.BundleConfig, io *client.IO) func(l *lab) error {
	return func(l *lab) error {
		l.t.Helper()
		l.mustExec("c1", "bad", cfg, io)
		_, err := l.start("c1", "bad")
		if status := l.status("c1", "bad"); status != 1 {
			l.t.Errorf("an exec that could not be started is %s", status)
		}
		if got := l.wait("c1", "bad"); got != 0 {
			l.t.Errorf("an exec that could not be started ended with %d", got)
		}
		l.mustDelete("c1", "bad")
		return err
	}
}

func spec(json string) *anypb.Any { return &anypb.Any{TypeUrl: "x", Value: []byte(json)} }

var execCases = []bad{
	{"exec without a spec", refusedExec(&task.ExecProcessRequest{ExecID: "e"}), codes.InvalidArgument, "give the process as JSON"},
	{"exec with an empty spec", refusedExec(&task.ExecProcessRequest{ExecID: "e", Spec: spec("")}), codes.InvalidArgument, "give the process as JSON"},
	{"exec with broken JSON", refusedExec(&task.ExecProcessRequest{ExecID: "e", Spec: spec(`{"args":["true"`)}), codes.InvalidArgument, "give the process as JSON"},
	{"exec with null", refusedExec(&task.ExecProcessRequest{ExecID: "e", Spec: spec("null")}), codes.InvalidArgument, "null"},
	{"exec with a list", refusedExec(&task.ExecProcessRequest{ExecID: "e", Spec: spec("[1]")}), codes.InvalidArgument, "give the process as JSON"},
	{"exec without an id", refusedExec(&task.ExecProcessRequest{Spec: spec("{}")}), codes.InvalidArgument, "id"},
	{"exec with a slash", refusedExec(&task.ExecProcessRequest{ExecID: "../x", Spec: spec("{}")}), codes.InvalidArgument, `"../x"`},
	{"exec with an id of 300 bytes", refusedExec(&task.ExecProcessRequest{ExecID: strings.Repeat("x", 300), Spec: spec("{}")}), codes.InvalidArgument, "xxx"},
	{"exec of a missing program", refusedStart(client.BundleConfig{Args: []string{"/no/such/program"}}, nil), codes.Unknown, `OCI runtime exec failed: exec failed: unable to start container process: exec: "/no/such/program": stat /no/such/program: no such file or directory`},
	{"exec without a program", refusedStart(client.BundleConfig{}, nil), codes.Unknown, "OCI runtime exec failed: "},
	{"exec in a missing directory", refusedStart(client.BundleConfig{Args: []string{"/bin/true"}, Cwd: "/no/such/dir"}, nil), codes.Unknown, "/no/such/dir"},
	{"exec with stdout of an unknown scheme", refusedStart(client.BundleConfig{Args: []string{"/bin/true"}}, &client.IO{Stdout: "gopher:///x"}), codes.InvalidArgument, "unknown STDIO scheme"},
	{"exec with a missing FIFO", refusedStart(client.BundleConfig{Args: []string{"/bin/true"}}, &client.IO{Stdout: "/no/such/fifo"}), codes.InvalidArgument, "/no/such/fifo"},
	{"start of an unknown exec", func(l *lab) error {
		_, err := l.start("c1", "e")
		return err
	}, codes.NotFound, noExec},
}

func refusedUpdate(r *anypb.Any) func(l *lab) error {
	return func(l *lab) error {
		_, err := l.Update(within(l.t), &task.UpdateTaskRequest{ID: "c1", Resources: r})
		return err
	}
}

func refusedKill(signal uint32) func(l *lab) error {
	return func(l *lab) error {
		_, err := l.Kill(within(l.t), &task.KillRequest{ID: "c1", Signal: signal})
		return err
	}
}

var callCases = []bad{
	{"update without resources", refusedUpdate(nil), codes.InvalidArgument, "resources"},
	{"update with broken JSON", refusedUpdate(spec("{")), codes.InvalidArgument, "resources"},
	{"update with null", refusedUpdate(spec("null")), codes.InvalidArgument, "resources"},
	{"update with a number", refusedUpdate(spec("5")), codes.InvalidArgument, "resources"},
	{"update to nonsense", refusedUpdate(spec(`{"memory":{"limit":"much"}}`)), codes.Unknown, "OCI runtime update failed: "},
	{"kill with signal 65", refusedKill(65), codes.InvalidArgument, "signal 65"},
	{"kill with signal 4294967295", refusedKill(1<<32 - 1), codes.InvalidArgument, "signal"},
	{"start twice", func(l *lab) error {
		_, err := l.start("c1", "")
		return err
	}, codes.FailedPrecondition, "cannot start a running process"},
	{"delete while running", func(l *lab) error {
		_, err := l.Delete(within(l.t), &task.DeleteRequest{ID: "c1"})
		return err
	}, codes.FailedPrecondition, "cannot delete a running process"},
	{"checkpoint with options of an unknown type", func(l *lab) error {
		_, err := l.Checkpoint(within(l.t), &task.CheckpointTaskRequest{ID: "c1", Path: "/x", Options: pack(l.t, &task.StateRequest{ID: "x"})})
		return err
	}, codes.InvalidArgument, "containerd.task.v3.StateRequest"},
	{"checkpoint to nowhere", func(l *lab) error {
		_, err := l.Checkpoint(within(l.t), &task.CheckpointTaskRequest{ID: "c1"})
		return err
	}, codes.InvalidArgument, "is not absolute"},
	{"checkpoint to a place in the bundle", func(l *lab) error {
		_, err := l.Checkpoint(within(l.t), &task.CheckpointTaskRequest{ID: "c1", Path: "here"})
		return err
	}, codes.InvalidArgument, "is not absolute"},
}

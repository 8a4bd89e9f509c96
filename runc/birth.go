package runc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"holdfast/internal/bundle"
	"holdfast/internal/reaper"
)

// Streams is what the process shall have as its descriptors 0, 1 and 2. The files stay the
// caller's. nil stands for /dev/null.
type Streams struct{ Stdin, Stdout, Stderr *os.File }

// CreateConfig is how to create a container.
type CreateConfig struct {
	Streams           // not used with a console
	Console      bool // as process.terminal in config.json, or the runtime refuses
	NoPivot      bool // --no-pivot
	NoNewKeyring bool // --no-new-keyring
}

// ExecConfig is how to run one more process in a container.
type ExecConfig struct {
	Streams        // not used with a console
	Console bool   // as terminal in Process, or the runtime refuses
	Process []byte // the process as JSON of the runtime specification
	ID      string // of the exec, unique in the container; names files, so it holds no slash
}

// RestoreConfig is how to restore a container from a checkpoint.
type RestoreConfig struct {
	Streams        // not used with a console
	Console bool   // as process.terminal in config.json, or the runtime refuses
	NoPivot bool   // --no-pivot
	Image   string // directory of the checkpoint
	Work    string // directory for CRIU's logs; empty: work in the bundle
	Parent  string // directory of the checkpoint it builds on, relative to Image; runc does not know the flag
}

// Create creates the container from the bundle. It returns its init process, which waits for
// Start and may be dead already, and the master of its console if there is one, in non-blocking
// mode.
//
// If it fails, nothing is left: a container that the runtime had made already, or half made when
// it was killed, is deleted by force. An existing container of the same id is not touched; the
// error is then ErrExists.
func (r *Runtime) Create(ctx context.Context, cfg CreateConfig) (*reaper.Child, *os.File, error) {
	return r.bear(ctx, birth{
		verb:    "create",
		pidFile: filepath.Join(r.Bundle, bundle.InitFile),
		streams: cfg.Streams,
		console: cfg.Console,
		args: func(pidFile, socket string) []string {
			args := []string{"--bundle", r.Bundle, "--pid-file", pidFile}
			args = appendValue(args, "--console-socket", socket)
			args = appendFlag(args, "--no-pivot", cfg.NoPivot)
			args = appendFlag(args, "--no-new-keyring", cfg.NoNewKeyring)
			return append(args, r.ID)
		},
	})
}

// Exec runs one more process in the container. It returns the process, which may be dead already,
// and the master of its console if there is one, in non-blocking mode. If it fails, the process is
// dead, unless the runtime has ended without telling its pid.
func (r *Runtime) Exec(ctx context.Context, cfg ExecConfig) (*reaper.Child, *os.File, error) {
	if cfg.ID == "" || strings.ContainsAny(cfg.ID, "/\x00") {
		return nil, nil, fmt.Errorf("cannot exec %q: its id names files and must be neither empty nor hold a slash: %w", cfg.ID, errdefs.ErrInvalidArgument)
	}
	// The names begin with exec., so no exec id can meet init.pid (contract T35).
	base := filepath.Join(r.Bundle, "exec."+cfg.ID)
	process := base + ".json"
	// Nobody else may read it: the environment of a process is a common place for secrets.
	if err := bundle.Make(process, cfg.Process, 0o600); err != nil {
		return nil, nil, r.failure("exec", fmt.Errorf("make process file: %w", err))
	}
	defer bundle.Remove(process) //nolint:errcheck // goes with the bundle at the latest
	pidFile := base + ".pid"
	child, master, err := r.bear(ctx, birth{
		verb:    "exec",
		exec:    cfg.ID,
		pidFile: pidFile,
		streams: cfg.Streams,
		console: cfg.Console,
		args: func(pidFile, socket string) []string {
			args := []string{"--process", process}
			args = appendValue(args, "--console-socket", socket)
			return append(args, "--detach", "--pid-file", pidFile, r.ID)
		},
	})
	if err != nil {
		_ = removePidFile(pidFile) // see above
	} else {
		_ = bundle.Remove(pidFile) // which the runtime has given that name
	}
	return child, master, err
}

// Restore is Create and Start from a checkpoint. On failure the end of CRIU's log is in the error
// and the log itself is kept as criu-restore.log in the bundle.
func (r *Runtime) Restore(ctx context.Context, cfg RestoreConfig) (*reaper.Child, *os.File, error) {
	work := cfg.Work
	if work == "" {
		work = filepath.Join(r.Bundle, "work")
	}
	child, master, err := r.bear(ctx, birth{
		verb:    "restore",
		pidFile: filepath.Join(r.Bundle, bundle.InitFile),
		streams: cfg.Streams,
		console: cfg.Console,
		args: func(pidFile, socket string) []string {
			args := []string{"--image-path", cfg.Image, "--work-path", work}
			args = appendValue(args, "--parent-path", cfg.Parent)
			args = append(args, "--detach", "--pid-file", pidFile)
			args = appendValue(args, "--console-socket", socket)
			args = appendFlag(args, "--no-pivot", cfg.NoPivot)
			// The restored init must become our child, not the runtime's (contract T37).
			return append(args, "--no-subreaper", "--bundle", r.Bundle, r.ID)
		},
	})
	return child, master, r.explain(err, work, "restore.log")
}

// undoLimit bounds the deletion of a container whose creation failed.
const undoLimit = 30 * time.Second

// birth is a command that leaves a process to us.
type birth struct {
	verb    string
	exec    string // the id, of an exec
	pidFile string
	streams Streams
	console bool
	args    func(pidFile, socket string) []string // what follows the verb; socket may be empty
}

// container tells whether the command makes a container, not just a process in one.
func (b *birth) container() bool { return b.verb != "exec" }

// bear runs b and returns the process and its console, or undoes what was done.
func (r *Runtime) bear(ctx context.Context, b birth) (*reaper.Child, *os.File, error) {
	c := command{verb: b.verb, exec: b.exec, streams: &b.streams}
	var path string
	var socket *consoleSocket
	if b.console {
		var err error
		if socket, err = listenConsole(r.Bundle); err != nil {
			return nil, nil, r.failure(b.verb, err)
		}
		defer socket.close()
		path, c.streams = socket.path, nil
	}
	if err := removePidFile(b.pidFile); err != nil {
		return nil, nil, r.failure(b.verb, err)
	}
	c.args = b.args(b.pidFile, path)
	child, err := r.deliver(ctx, b, c)
	if err != nil {
		return nil, nil, r.undo(ctx, b, child, err)
	}
	if socket == nil {
		return child, nil, nil
	}
	master, err := socket.receive(ctx)
	if err != nil {
		return nil, nil, r.undo(ctx, b, child, r.unusable(b.verb, err))
	}
	return child, master, nil
}

// deliver runs the command and adopts the process that it leaves. There may be a process although
// there is an error.
func (r *Runtime) deliver(ctx context.Context, b birth, c command) (*reaper.Child, error) {
	var failed error
	child, err := reaper.Adopt(func() (int, error) {
		failed = r.execute(ctx, c)
		pid, err := readPid(b.pidFile)
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the runtime ended well but wrote no pid file; the process it may have started cannot be found")
		}
		return pid, err
	})
	if failed != nil {
		return child, failed
	}
	if err != nil {
		return nil, r.unusable(b.verb, err)
	}
	return child, nil
}

// unusable is the Error of a command that ended well with something that is of no use to us.
func (r *Runtime) unusable(verb string, cause error) *Error {
	e := r.failure(verb, cause)
	e.Code, e.leftover = 0, true
	return e
}

// undo kills the process, if one is known, and deletes the container if the runtime may have left
// one. It returns cause.
func (r *Runtime) undo(ctx context.Context, b birth, child *reaper.Child, cause error) error {
	if child != nil {
		_ = child.Signal(unix.SIGKILL) // an error says that it is dead
		_ = within(child, killWait)    // if not, it dies when its uninterruptible sleep ends
	}
	if !b.container() {
		return cause
	}
	_ = os.Remove(b.pidFile) // or the delete action would report its pid
	var e *Error
	if !errors.As(cause, &e) || !e.leftover {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := r.Delete(ctx, true); err != nil {
		e.Message = clean(e.Message + "; and what it left could not be removed: " + err.Error())
	}
	return e
}

// removePidFile removes what an earlier try left. The runtime makes the file under a hidden name
// and with O_EXCL, so a leftover of that would fail each later try (contract T35).
func removePidFile(path string) error {
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	for _, p := range []string{path, hidden} {
		if err := bundle.Remove(p); err != nil {
			return fmt.Errorf("remove old pid file: %w", err)
		}
	}
	return nil
}

func appendFlag(args []string, flag string, set bool) []string {
	if !set {
		return args
	}
	return append(args, flag)
}

func appendValue(args []string, flag, value string) []string {
	if value == "" {
		return args
	}
	return append(args, flag, value)
}

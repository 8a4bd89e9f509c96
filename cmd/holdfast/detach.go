package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

// runFile, in the directory of a run, is what its end needs to know if somebody else sees to that.
const runFile = "run.json"

// leave starts the container, unless it is only to be created, and leaves it to the verbs that work on
// running shims. Only its id is printed, for scripts. Its streams are /dev/null unless it is to be attached to, and its events wait for
// shutdown. If it cannot be started nothing is left.
func (r *run) leave(ctx context.Context) error {
	err := r.start(ctx)
	if err != nil {
		return errors.Join(err, r.end(ctx, err))
	}
	address := r.session.Result.Address
	r.session.Close()
	fmt.Fprintln(stdout, r.id)
	fmt.Fprintln(os.Stderr, "holdfast: its shim is at", address)
	if r.remove {
		return tidyLater(address, r.id)
	}
	return nil
}

// note writes the runFile.
func (r *run) note() error {
	config := r.session.Config
	config.Options = nil // not part of the delete action
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, runFile), data, 0o600)
}

func (r *run) start(ctx context.Context) error {
	streams, err := r.streamsForLater()
	if err != nil {
		return err
	}
	if err := r.create(ctx, streams); err != nil {
		return err
	}
	if r.created {
		return nil
	}
	_, err = r.session.Start(ctx, &task.StartRequest{ID: r.id})
	return err
}

// tidyVerb is what tidyLater runs: wait, delete and shutdown in one.
var tidyVerb = verb{"tidy", "ID", "delete a container once it has exited, and end its shim", 1, 1, false, onShim(tidy, nil)}

// tidyLater leaves a process behind that deletes the container and ends its shim. It belongs to no
// terminal, and to nobody.
func tidyLater(address, id string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, tidyVerb.name, "--address", address, id)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot leave anybody who deletes %s: because %w; delete it when it has exited", id, err)
	}
	return cmd.Process.Release()
}

func tidy(ctx context.Context, t *target) (int, error) {
	if _, err := t.Wait(ctx, &task.WaitRequest{ID: t.id}); err != nil {
		return 0, err
	}
	if _, err := t.Delete(ctx, &task.DeleteRequest{ID: t.id}); err != nil {
		return 0, err
	}
	return shutdown(ctx, t)
}

// streamsForLater makes the FIFOs of a container that somebody will attach to; nil if nobody will.
func (r *run) streamsForLater() (*client.IO, error) {
	if !r.terminal && !r.stdin {
		return nil, nil
	}
	prefix := filepath.Join(r.dir, r.id)
	streams := &client.IO{Stdin: prefix + "-stdin", Stdout: prefix + "-stdout", Terminal: r.terminal}
	if !r.terminal {
		streams.Stderr = prefix + "-stderr"
	}
	for _, path := range []string{streams.Stdin, streams.Stdout, streams.Stderr} {
		if path == "" {
			continue
		}
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
	}
	return streams, nil
}

// leftover is a run that was left running, as whoever ends its shim finds it.
type leftover struct {
	dir    string
	config client.StartConfig
	events *client.Events
}

// findLeftover returns the run that the shim with an address and a pid belongs to, or nil: other shims
// have none. Its socket is in the directory of the run, or, if it was started as of old, where all
// shims have theirs, but then the manager that it was told of is a name in that directory. It serves
// events again, for those that the shim could not get rid of; the caller closes them.
func findLeftover(ctx context.Context, address string, pid int) (*leftover, error) {
	dir, config, err := findRun(ctx, address, pid)
	if err != nil || config == nil {
		return nil, err
	}
	l := &leftover{dir: dir, config: *config}
	l.events, err = client.ListenEvents(l.config.TTRPCAddress)
	return l, err
}

// findRun returns the directory of that run and what is in its runFile, nil if there is none.
func findRun(ctx context.Context, address string, pid int) (dir string, config *client.StartConfig, err error) {
	dirs := []string{filepath.Dir(filepath.Dir(strings.TrimPrefix(address, "unix://")))}
	shims, err := node.Find(ctx, node.Config{})
	if err != nil {
		return "", nil, err
	}
	for _, s := range shims {
		if s.Pid == pid && filepath.IsAbs(s.Manager) {
			dirs = append(dirs, filepath.Dir(s.Manager))
		}
	}
	for _, dir := range dirs {
		if config, err := readRun(dir); err != nil || config != nil {
			return dir, config, err
		}
	}
	return "", nil, nil
}

// maxListed is how many of the events are printed that no manager has taken.
const maxListed = 20

// sweep runs the delete action, prints the events and removes the directory, after the shim has
// ended.
func (l *leftover) sweep(ctx context.Context) error {
	if _, _, err := client.Delete(ctx, l.config); err != nil {
		return err
	}
	all := l.events.All()
	if more := len(all) - maxListed; more > 0 {
		fmt.Fprintf(os.Stderr, "%d events, of which these are the last:\n", len(all))
		all = all[more:]
	}
	list(os.Stderr, all)
	l.events.Close()
	return removeAll(l.dir)
}

// shutdownStrays shuts down the shim that a failed start may have left in dir, found by its
// socket.
func shutdownStrays(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	sockets, err := filepath.Glob(filepath.Join(dir, "s", "*"))
	if err != nil {
		return err
	}
	for _, socket := range sockets {
		shim, err := client.Dial(ctx, socket)
		if err != nil {
			continue // nobody there
		}
		_, err = shim.Shutdown(ctx, &task.ShutdownRequest{})
		shim.Close()
		if err != nil {
			return fmt.Errorf("cannot shut down the shim on %s: %w", socket, err)
		}
	}
	return nil
}

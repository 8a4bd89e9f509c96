package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	flag "github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

const (
	shimName = "containerd-shim-holdfast-v2"

	launchLimit = 20 * time.Second // for the shim to answer its first call
	killLimit   = 5 * time.Second  // for a shim to send a signal
	eventLimit  = 5 * time.Second  // for the last event to arrive
	deleteLimit = 15 * time.Second // for a shim to delete a container that could not be run
	endLimit    = 45 * time.Second // for that, shutdown and delete action together

	// tempDirLimit leaves room for "/holdfast-4294967295/s/", the 64 characters of a socket's name
	// and a 0 in the 108 of a socket's path (unix(7)).
	tempDirLimit = 20
)

// run is one container, run through a shim of its own.
type run struct {
	terminal, stdin   bool
	detach, remove    bool
	created           bool // not started
	legacy, debug     bool
	runtime, shim, id string
	rootfs            string

	dir     string // everything of this run is in it
	options *anypb.Any
	session *client.Session
	streams *attachment
}

func setupRun(f *flag.FlagSet) action {
	r := &run{}
	f.BoolVarP(&r.detach, "detach", "d", false, "leave the container running; with -i or -t it can be attached to")
	f.BoolVar(&r.remove, "rm", false, "with -d: delete the container and end its shim once it has exited, as is done without -d anyway")
	r.flags(f)
	return r.do
}

func setupCreate(f *flag.FlagSet) action {
	r := &run{detach: true, created: true}
	r.flags(f)
	return r.do
}

// flags are those that run and create have in common.
func (r *run) flags(f *flag.FlagSet) {
	f.BoolVarP(&r.terminal, "tty", "t", false, "give the process a terminal; without BUNDLE, run a shell in it")
	f.BoolVarP(&r.stdin, "interactive", "i", false, "pass on standard input; implied by a terminal")
	f.StringVar(&r.rootfs, "rootfs", "", "directory to use as the container's root, for a command of one's own")
	f.StringVar(&r.runtime, "runtime", "runc", "OCI runtime, a name in PATH or an absolute path")
	f.StringVar(&r.shim, "shim", "", "shim to use; "+shimName+" beside holdfast or in PATH if not given")
	f.StringVar(&r.id, "id", "", "id of the container; made up if not given")
	f.BoolVar(&r.legacy, "legacy", false, "start the shim as containerd up to 2.2 does, for older shims")
	f.BoolVar(&r.debug, "debug", false, "let the shim log at level debug, and show its log as it is written")
}

// do runs the container and returns its exit status.
func (r *run) do(ctx context.Context, args []string) (status int, err error) {
	if err := r.fits(args); err != nil {
		return 0, misuse{err}
	}
	if err := r.check(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := watchSignals(func() bool { return r.kill(ctx) }, cancel)
	defer signals.stop() // last of all: until then everything is cleaned up

	if r.dir, err = os.MkdirTemp(tempDir(), "holdfast-"); err != nil {
		return 0, err
	}
	defer func() {
		if !r.detach || err != nil {
			err = errors.Join(err, removeAll(r.dir))
		}
	}()
	if r.id == "" {
		r.id = filepath.Base(r.dir)
	} else if err := idIsFree(ctx, r.id); err != nil {
		return 0, err
	}
	if r.terminal, err = r.makeBundle(args); err != nil {
		return 0, err
	}
	r.stdin = r.stdin || r.terminal
	// Signals have to wait until there is a session: a start that is cut off may leave a shim of
	// which we know nothing.
	if err := r.launch(); err != nil {
		return 0, errors.Join(err, shutdownStrays(r.dir))
	}
	signals.open()
	if err := r.note(); err != nil {
		return 0, errors.Join(err, r.end(ctx, err))
	}
	if r.detach {
		return 0, r.leave(ctx)
	}
	return r.through(ctx)
}

// command is what the container runs if there is no bundle that says so.
func (r *run) command() []string {
	switch {
	case r.terminal:
		return []string{"sh"}
	case r.detach:
		return []string{"sleep", "infinity"}
	}
	return []string{"sh", "-c", greeting}
}

// bundle has the id for its name: older shims look for it by that.
func (r *run) bundle() string { return filepath.Join(r.dir, "bundle", r.id) }

// check finds what can be known to fail before anything is made.
func (r *run) check() (err error) {
	switch {
	case os.Geteuid() != 0:
		return errors.New("cannot run a container: because only root may; use sudo")
	case r.id != "" && !isID(r.id):
		return badID(r.id)
	}
	if r.shim == "" {
		r.shim, err = findShim()
		return err
	}
	if r.shim, err = exec.LookPath(r.shim); err != nil {
		return fmt.Errorf("cannot use the shim: %w", err)
	}
	r.shim, err = filepath.Abs(r.shim) // it is run in another directory
	return err
}

// idIsFree makes sure that who names the container later means this one.
func idIsFree(ctx context.Context, id string) error {
	shims, err := node.Find(ctx, node.Config{})
	if err != nil {
		return err
	}
	for _, s := range shims {
		if s.Namespace == client.DefaultNamespace && (s.ID == id || slices.Contains(s.Containers(), id)) {
			return fmt.Errorf("cannot use the id %s: because the container of the shim with pid %d has it, at %s; delete that, or choose another", id, s.Pid, s.Address)
		}
	}
	return nil
}

// tempDir is where temporary files go, unless its path is too long for sockets.
func tempDir() string {
	if dir := os.TempDir(); len(dir) <= tempDirLimit {
		return dir
	}
	return "/tmp"
}

// removeAll removes a directory of ours, but not through a mount: what is mounted there is not
// ours, and that it still is has to be looked into.
func removeAll(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", dir, err)
	}
	if len(mounts) > 0 {
		return fmt.Errorf("cannot remove %s: because %s is still mounted; unmount it and remove the directory", dir, mounts[0].Mountpoint)
	}
	return os.RemoveAll(dir)
}

// findShim looks beside our own executable first: the two are built together.
func findShim() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), shimName)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	path, err := exec.LookPath(shimName)
	if err != nil {
		return "", fmt.Errorf("cannot find a shim: because %s is neither in %s nor in PATH; build it there, or name one with --shim",
			shimName, filepath.Dir(self))
	}
	return filepath.Abs(path)
}

// through takes the container through its life and ends the shim, whatever happens in between.
func (r *run) through(ctx context.Context) (int, error) {
	defer func() { // a bug of ours must not leave the terminal raw
		if r.streams != nil {
			r.streams.detach()
		}
	}()
	exit, err := r.live(ctx)
	if r.streams != nil {
		r.streams.detach()
	}
	err = errors.Join(err, r.end(ctx, err))
	if !r.debug {
		var refusal *client.Error // which explains itself
		showLog(os.Stderr, r.session.Log.String(), err != nil && !errors.As(err, &refusal))
	}
	if exit != nil {
		report(os.Stderr, exit.GetExitStatus(), r.session.Events.All())
	}
	return int(exit.GetExitStatus()), err
}

func (r *run) launch() error {
	ctx, cancel := context.WithTimeout(context.Background(), launchLimit)
	defer cancel()
	value, err := proto.Marshal(&options.Options{BinaryName: r.runtime, Root: filepath.Join(r.dir, "runtime")})
	if err != nil {
		return err
	}
	r.options = &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value}
	var log io.Writer
	if r.debug {
		log = os.Stderr
	}
	r.session, err = client.Launch(ctx, r.dir, client.StartConfig{
		Binary: r.shim, ID: r.id, Bundle: r.bundle(),
		SocketDir: filepath.Join(r.dir, "s"), Options: r.options, Legacy: r.legacy, Debug: r.debug,
	}, log)
	return err
}

// live takes the container from its creation to its deletion. The exit is nil if there was none.
func (r *run) live(ctx context.Context) (*task.WaitResponse, error) {
	var err error
	if r.streams, err = attach(r.dir, r.id, r.terminal, r.stdin); err != nil {
		return nil, err
	}
	if err := r.create(ctx, r.streams.IO); err != nil {
		return nil, err
	}
	if err := r.streams.follow(ctx, r.session, r.id, ""); err != nil {
		return nil, err
	}
	if _, err := r.session.Start(ctx, &task.StartRequest{ID: r.id}); err != nil {
		return nil, err
	}
	exit, err := r.session.Wait(ctx, &task.WaitRequest{ID: r.id})
	if err != nil {
		return nil, err
	}
	if _, err := r.session.Delete(ctx, &task.DeleteRequest{ID: r.id}); err != nil {
		return exit, err
	}
	return exit, r.streams.drain(ctx)
}

func (r *run) create(ctx context.Context, streams *client.IO) error {
	request := &task.CreateTaskRequest{ID: r.id, Bundle: r.session.Config.Bundle, Options: r.options}
	if streams != nil {
		request.Terminal = streams.Terminal
		request.Stdin, request.Stdout, request.Stderr = streams.Stdin, streams.Stdout, streams.Stderr
	}
	_, err := r.session.Create(ctx, request)
	return err
}

// kill kills the container. It reports whether there was one to kill.
func (r *run) kill(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	_, err := r.session.Kill(ctx, &task.KillRequest{ID: r.id, Signal: 9, All: true})
	return err == nil
}

// end ends the shim: in order if the container is gone or can be deleted, else by force, which the
// delete action then cleans up after. ctx has ended if the user has given up.
func (r *run) end(ctx context.Context, failure error) error {
	gaveUp := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	if failure != nil && (gaveUp || !r.deleted(ctx)) {
		_, _, err := r.session.Crash(ctx)
		return err
	}
	if failure == nil {
		if err := r.lastEvent(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "holdfast:", err)
		}
	}
	_, err := r.session.End(ctx)
	if errors.Is(err, client.ErrWarning) {
		fmt.Fprintln(os.Stderr, "holdfast:", err)
		err = nil
	}
	return err
}

// deleted deletes the container if it can be, and reports whether there is none now.
func (r *run) deleted(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, deleteLimit)
	defer cancel()
	_, err := r.session.Delete(ctx, &task.DeleteRequest{ID: r.id})
	return err == nil || errors.Is(err, errdefs.ErrNotFound)
}

func (r *run) lastEvent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, eventLimit)
	defer cancel()
	_, err := r.session.Events.Wait(ctx, client.Deletes(r.id, ""))
	return err
}

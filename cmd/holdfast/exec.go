package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
)

// startPause is between two tries to kill what is being started.
const startPause = 10 * time.Millisecond

// runExec runs one exec process, attached to our streams, and returns its exit status. A signal
// kills the process; a second one leaves it.
func runExec(ctx context.Context, t *target) (status int, err error) {
	if len(t.args) == 0 {
		return 0, misuse{errors.New("cannot run nothing: name a command after the id")}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := watchSignals(func() bool { return t.killExec(ctx) }, cancel)
	defer signals.stop()
	signals.open()

	dir, err := os.MkdirTemp("", "holdfast-exec-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if t.exec == "" {
		t.exec = filepath.Base(dir)
	}
	spec, err := t.process(ctx)
	if err != nil {
		return 0, err
	}
	streams, err := attach(dir, t.exec, t.terminal, t.stdin || t.terminal)
	if err != nil {
		return 0, err
	}
	defer streams.detach()
	if _, err := t.Exec(ctx, &task.ExecProcessRequest{
		ID: t.id, ExecID: t.exec, Spec: spec, Terminal: t.terminal,
		Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr,
	}); err != nil {
		return 0, err
	}
	return t.attached(ctx, streams)
}

// process returns the process of the container's specification with our command instead of its
// own.
func (t *target) process(ctx context.Context) (*anypb.Any, error) {
	state, err := t.State(ctx, &task.StateRequest{ID: t.id})
	if err != nil {
		return nil, err
	}
	spec, err := client.ReadSpec(state.GetBundle())
	if err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, fmt.Errorf("cannot run a process: because config.json of %s has none to take after", state.GetBundle())
	}
	spec.Process.Args, spec.Process.Terminal = t.args, t.terminal
	// An exec process has no console before its start, when it would be too late for what it does
	// first.
	if width, height, ok := windowSize(os.Stdin, os.Stdout); ok && t.terminal {
		spec.Process.ConsoleSize = &specs.Box{Width: uint(width), Height: uint(height)}
	}
	data, err := json.Marshal(spec.Process)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: client.ProcessType, Value: data}, nil
}

// attached takes an exec process that has been added from its start to its deletion.
func (t *target) attached(ctx context.Context, streams *attachment) (int, error) {
	exit, err := t.startAndWait(ctx, streams)
	// Detached, so that the process is forgotten whatever has happened.
	forget, done := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer done()
	if _, deleteErr := t.Delete(forget, &task.DeleteRequest{ID: t.id, ExecID: t.exec}); deleteErr != nil {
		err = errors.Join(err, deleteErr)
	} else if err == nil {
		err = streams.drain(ctx)
	}
	return int(exit.GetExitStatus()), err
}

func (t *target) startAndWait(ctx context.Context, streams *attachment) (*task.WaitResponse, error) {
	if err := streams.follow(ctx, t, t.id, t.exec); err != nil {
		return nil, err
	}
	if _, err := t.Start(ctx, &task.StartRequest{ID: t.id, ExecID: t.exec}); err != nil {
		return nil, err
	}
	return t.Wait(ctx, &task.WaitRequest{ID: t.id, ExecID: t.exec})
}

// killExec reports whether there was a process to kill. One that is being started can be killed only when
// it is: it may run, and its output have been seen, before the shim has said so.
func (t *target) killExec(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	for {
		_, err := t.Kill(ctx, &task.KillRequest{ID: t.id, ExecID: t.exec, Signal: 9})
		if !errdefs.IsFailedPrecondition(err) {
			return err == nil
		}
		select {
		case <-time.After(startPause):
		case <-ctx.Done():
			return false
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
)

// errDetached is the end of input at the keys that say so.
var errDetached = errors.New("detached")

// detachKeys are those of docker and ctr: Ctrl-P, Ctrl-Q.
var detachKeys = []byte{'p' & 0x1f, 'q' & 0x1f}

// keyReader passes on what it reads until the detach keys come, which it keeps.
type keyReader struct {
	io.Reader
	held int // of the keys that have come already
}

func (r *keyReader) Read(p []byte) (int, error) {
	if len(p) <= len(detachKeys) {
		return 0, io.ErrShortBuffer
	}
	// What is held back turns out to be no detach keys: then it goes before the rest.
	n, err := r.Reader.Read(p[len(detachKeys):])
	read := p[len(detachKeys) : len(detachKeys)+n]
	out := p[:0]
	for _, b := range read {
		switch {
		case b == detachKeys[r.held]:
			if r.held++; r.held == len(detachKeys) {
				return len(out), errDetached
			}
		default:
			out = append(out, detachKeys[:r.held]...)
			r.held = 0
			if b == detachKeys[0] {
				r.held = 1
				continue
			}
			out = append(out, b)
		}
	}
	if err != nil {
		out = append(out, detachKeys[:r.held]...)
		r.held = 0
	}
	return len(out), err
}

// reattach connects our streams with those of a process that runs, until it ends or the detach keys come.
// It returns the status of the process.
func reattach(ctx context.Context, t *target) (int, error) {
	state, err := t.State(ctx, &task.StateRequest{ID: t.id, ExecID: t.exec})
	if err != nil {
		return 0, err
	}
	prefix, ok := strings.CutSuffix(state.GetStdout(), "-stdout")
	if !ok {
		return 0, fmt.Errorf("cannot attach to %s: because its output goes to %q, which is no FIFO of a client; run it with -d and -i or -t",
			t.id, state.GetStdout())
	}
	streams, err := attach(filepath.Dir(prefix), filepath.Base(prefix), state.GetTerminal(), state.GetStdin() != "")
	if err != nil {
		return 0, err
	}
	defer streams.detach()
	streams.left = make(chan struct{})
	if err := streams.follow(ctx, t, t.id, t.exec); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	var exit *task.WaitResponse
	go func() { // ends with the process, or with ctx
		var err error
		exit, err = t.Wait(ctx, &task.WaitRequest{ID: t.id, ExecID: t.exec})
		ended <- err
	}()
	select {
	case <-streams.left:
		streams.detach() // the terminal first, or the words would stand askew
		fmt.Fprintln(os.Stderr, "\nholdfast: detached; `holdfast attach` comes back")
		return 0, nil
	case err := <-ended:
		if err != nil {
			return 0, err
		}
		if state.GetStatus() == tasktypes.Status_STOPPED {
			// It had ended before we came. What it said may have been read by somebody else, with the end
			// of the stream; then there is nothing to wait for.
			limited, cancel := context.WithTimeout(ctx, oldOutputLimit)
			defer cancel()
			err = streams.Drained(limited)
			if limited.Err() != nil && ctx.Err() == nil {
				err = nil
			}
			return int(exit.GetExitStatus()), err
		}
		return int(exit.GetExitStatus()), streams.drain(ctx)
	}
}

// oldOutputLimit is how long it may take to read what lies in the FIFOs of a process that has ended.
const oldOutputLimit = time.Second

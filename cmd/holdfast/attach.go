package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// drainLimit is how long output may take to arrive once its process has been deleted: a shim ends
// the streams before it answers, so that nothing but copying is left to do.
const drainLimit = 5 * time.Second

// attachment connects our own standard streams with those of a process.
type attachment struct {
	*client.IO

	stdin   bool
	console *console
	stop    chan struct{} // closed by detach
	left    chan struct{} // not nil: closed when the detach keys are typed
	ended   sync.WaitGroup
}

// attach opens the client's ends of the streams of a process, in dir. Our terminal is not touched
// before follow.
func attach(dir, name string, terminal, stdin bool) (*attachment, error) {
	streams, err := client.OpenIO(dir, name, client.IOConfig{
		Stdin: stdin, Terminal: terminal, Stdout: stdout, Stderr: os.Stderr, Forget: true,
	})
	if err != nil {
		return nil, err
	}
	return &attachment{IO: streams, stdin: stdin, stop: make(chan struct{})}, nil
}

// follow passes on input and window size from now on, to a process that has been created. A
// terminal of ours is in raw mode until detach.
func (a *attachment) follow(ctx context.Context, shim task.TTRPCTaskService, id, exec string) error {
	if a.Terminal && a.stdin {
		console, err := rawConsole(os.Stdin)
		if err != nil {
			return err
		}
		a.console = console
	}
	if a.Terminal {
		a.resize(ctx, shim, id, exec)
		changed := make(chan os.Signal, 1)
		signal.Notify(changed, unix.SIGWINCH)
		a.ended.Go(func() {
			defer a.console.restoreInPanic()
			defer signal.Stop(changed)
			for {
				select {
				case <-changed:
					a.resize(ctx, shim, id, exec)
				case <-a.stop:
					return
				}
			}
		})
	}
	if a.stdin {
		go a.input(ctx, shim, id, exec)
	}
	return nil
}

// resize tells the shim the size of our window. That a process is gone already is no news here:
// whoever waits for it learns so.
func (a *attachment) resize(ctx context.Context, shim task.TTRPCTaskService, id, exec string) {
	width, height, ok := windowSize(os.Stdin, os.Stdout)
	if !ok {
		return
	}
	request := &task.ResizePtyRequest{ID: id, ExecID: exec, Width: width, Height: height}
	if _, err := shim.ResizePty(ctx, request); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "holdfast: cannot resize the terminal of %s: %v\r\n", id, err)
	}
}

// input copies standard input until it ends, and tells the shim so. It may never end: nothing
// makes a read of a terminal return. Then it ends with the program, which has nothing left to do.
func (a *attachment) input(ctx context.Context, shim task.TTRPCTaskService, id, exec string) {
	defer a.console.restoreInPanic()
	from := io.Reader(os.Stdin)
	if a.left != nil && a.Terminal {
		from = &keyReader{Reader: from}
	}
	// Any other error is that the process does not read any more: its affair.
	if _, err := io.Copy(a.In, from); errors.Is(err, errDetached) {
		close(a.left)
		return
	}
	a.In.Close()
	// Without this the shim would keep the stream open for another client.
	shim.CloseIO(ctx, &task.CloseIORequest{ID: id, ExecID: exec, Stdin: true})
}

// drain waits, not for long, for output that is still on its way.
func (a *attachment) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	return a.Drained(ctx)
}

// detach restores the terminal and closes the streams. It can be repeated.
func (a *attachment) detach() {
	a.console.restore()
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
	a.ended.Wait()
	a.Close()
}

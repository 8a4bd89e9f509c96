package stdio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"holdfast/internal/reaper"
)

const (
	// readyLimit bounds what upstream does not bound (contract 7.6): a logger that hangs must
	// not hang Create. One that starts on a busy machine needs a second or two.
	readyLimit = 10 * time.Second
	// lastWordLimit is how long we wait for the status of a logger that has let go of its
	// ready descriptor without a word: it is most likely dying.
	lastWordLimit = 200 * time.Millisecond
	// termLimit is how long a logger has between SIGTERM and SIGKILL (contract 7.6).
	termLimit = 12 * time.Second
	// killLimit is how long we wait for the kernel to end a killed logger.
	killLimit = 2 * time.Second
)

// logger is a logging process: stdout's pipe is its descriptor 3, stderr's is 4, and by its
// descriptor 5 it says that it is ready (contract 7.6). It belongs to the shim, so that it
// outlives the manager, and ends after the process whose output it reads.
type logger struct {
	child   *reaper.Child
	log     *slog.Logger
	pipes   [2]string     // names of stdout's and stderr's: see behind
	expect  atomic.Bool   // its end is nothing to warn of
	watched chan struct{} // closed by watch
}

// startLogger starts the logger that t names, waits until it is ready, and returns the write
// ends of its stdout and stderr pipes. They belong to the caller; a stream that is not wanted has
// none, and the logger reads its end at once.
func startLogger(
	ctx context.Context, cfg *Config, t target, want [2]bool,
) (*logger, [2]*os.File, error) {
	var in, out [2]*os.File
	var pipes [2]string
	for i, name := range [2]string{"stdout", "stderr"} {
		r, w, err := pipe()
		if err != nil {
			return nil, out, errors.Join(err, closeFiles(in[:]), closeFiles(out[:]))
		}
		in[i], out[i] = os.NewFile(uintptr(r), name), os.NewFile(uintptr(w), name)
		if pipes[i], err = pipeName(r); err != nil {
			return nil, out, errors.Join(err, closeFiles(in[:]), closeFiles(out[:]))
		}
	}
	l, err := launchLogger(ctx, cfg, t, in)
	// The logger holds the read ends now. If we did too its death would not free the writer.
	err = errors.Join(err, closeFiles(in[:]))
	for i := range out {
		if err != nil || !want[i] {
			err = errors.Join(err, closeFiles(out[i:i+1]))
		}
	}
	if err != nil {
		if l != nil {
			err = errors.Join(err, l.stop(0))
		}
		return nil, [2]*os.File{}, err
	}
	l.pipes = pipes
	return l, out, nil
}

// launchLogger starts the process and waits for its word. It may return both a logger and an
// error: then the logger must be stopped.
func launchLogger(ctx context.Context, cfg *Config, t target, in [2]*os.File) (*logger, error) {
	r, w, err := pipe()
	if err != nil {
		return nil, err
	}
	ready := os.NewFile(uintptr(w), "ready")
	word, err := newEnd(r, "ready")
	if err != nil {
		return nil, errors.Join(err, ready.Close())
	}
	defer word.release()
	child, err := reaper.Start(&reaper.Command{
		Path:  t.path,
		Args:  t.args,
		Env:   []string{"CONTAINER_ID=" + cfg.ID, "CONTAINER_NAMESPACE=" + cfg.Namespace},
		Files: []*os.File{nil, nil, nil, in[0], in[1], ready},
	})
	// Only the logger may hold this end, or its death would not end our waiting.
	if closeErr := ready.Close(); err != nil || closeErr != nil {
		return nil, fmt.Errorf("cannot start logger %s: %w", t.path, errors.Join(err, closeErr))
	}
	l := &logger{child: child, log: cfg.Log, watched: make(chan struct{})}
	go l.watch()
	if err := l.await(ctx, word.f, t.scheme == schemeBinaryV2); err != nil {
		return l, fmt.Errorf("cannot use logger %s: %w", t.path, err)
	}
	return l, nil
}

// await waits for the logger's word on r. With strict the word is a byte; otherwise closing the
// descriptor, which a dying logger does too, is as good.
func (l *logger) await(ctx context.Context, r *os.File, strict bool) error {
	if err := r.SetReadDeadline(time.Now().Add(readyLimit)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(past()) })()
	if strict {
		// A child of the logger may keep the descriptor open: the logger's death ends it too.
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-l.child.Done():
				_ = r.SetReadDeadline(time.Now().Add(lastWordLimit))
			case <-stop:
			}
		}()
	}
	n, err := r.Read(make([]byte, 1))
	switch {
	case n == 1:
		return nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		// The end of the pipe, or an error that is as good as that.
		if !strict {
			return nil
		}
		return l.neverReady()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case strict && isClosed(l.child.Done()):
		return l.neverReady()
	default:
		return fmt.Errorf("it was not ready within %v; it must write a byte to descriptor 5, or close it"+
			": %w", readyLimit, context.DeadlineExceeded)
	}
}

// neverReady is the error of a logger that gave up its ready descriptor without a word.
func (l *logger) neverReady() error {
	select {
	case <-l.child.Done():
		return fmt.Errorf("logging binary did not call ready: it ended with status %d",
			l.child.Exit().Status)
	case <-time.After(lastWordLimit):
		return errors.New("logging binary did not call ready: it closed descriptor 5 without a word")
	}
}

// watch reports a logger that ends before its process. It ends with the logger.
func (l *logger) watch() {
	defer close(l.watched)
	<-l.child.Done()
	if !l.expect.Load() {
		l.log.Warn("logger has ended before its process, whose output is lost from here on",
			"pid", l.child.Pid(), "status", l.child.Exit().Status)
	}
}

// stop ends the logger: by SIGTERM, and after patience by SIGKILL, which its children get too.
// It may be called again, also concurrently.
func (l *logger) stop(patience time.Duration) error {
	l.expect.Store(true)
	if patience > 0 {
		if err := l.signal(l.child.Signal, syscall.SIGTERM); err != nil {
			return err
		}
		if l.ended(patience) {
			return nil
		}
	}
	if err := l.signal(l.child.SignalGroup, syscall.SIGKILL); err != nil {
		return err
	}
	if !l.ended(killLimit) {
		return fmt.Errorf("logger with pid %d has not ended %v after SIGKILL",
			l.child.Pid(), killLimit)
	}
	return nil
}

func (l *logger) signal(send func(syscall.Signal) error, sig syscall.Signal) error {
	if err := send(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// ended waits up to limit for the logger's end.
func (l *logger) ended(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-l.watched:
		return true
	case <-timer.C:
		return false
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

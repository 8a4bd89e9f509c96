package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
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
)

// launch starts the program and waits for its word. After an error it does not run.
func (l *logger) launch(ctx context.Context) (*reaper.Child, error) {
	path, err := permitted(l.target.path, l.cfg.LoggerDirs)
	if err != nil {
		return nil, err
	}
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
	child, err := l.begin(&reaper.Command{
		Path:  path,
		Args:  l.target.args,
		Env:   []string{"CONTAINER_ID=" + l.cfg.ID, "CONTAINER_NAMESPACE=" + l.cfg.Namespace},
		Files: []*os.File{nil, nil, nil, l.in[0], l.in[1], ready},
	})
	// Only the logger may hold this end, or its death would not end our waiting.
	if closeErr := ready.Close(); err != nil || closeErr != nil {
		return nil, fmt.Errorf("cannot start logger %s: %w", l.target.path, errors.Join(err, closeErr))
	}
	if err := await(ctx, child, word.f, l.target.scheme == schemeBinaryV2); err != nil {
		err = fmt.Errorf("cannot use logger %s: %w", l.target.path, err)
		return nil, errors.Join(err, l.discard(child))
	}
	return child, nil
}

// begin starts the program so that stop sees it, or it sees stop.
func (l *logger) begin(cmd *reaper.Command) (*reaper.Child, error) {
	child, err := reaper.Start(cmd)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.child = child
	l.mu.Unlock()
	if l.quit.Err() != nil {
		return nil, errors.Join(context.Cause(l.quit), l.discard(child))
	}
	return child, nil
}

// await waits for the word of a logger on r. With strict the word is a byte; otherwise closing
// the descriptor, which a dying logger does too, is as good.
func await(ctx context.Context, child *reaper.Child, r *os.File, strict bool) error {
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
			case <-child.Done():
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
		return neverReady(child)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case strict && isClosed(child.Done()):
		return neverReady(child)
	default:
		return fmt.Errorf("it was not ready within %v; it must write a byte to descriptor 5, or close it"+
			": %w", readyLimit, context.DeadlineExceeded)
	}
}

// neverReady is the error of a logger that gave up its ready descriptor without a word.
func neverReady(child *reaper.Child) error {
	if closes(child.Done(), lastWordLimit) {
		return fmt.Errorf("logging binary did not call ready: it ended with status %d",
			child.Exit().Status)
	}
	return errors.New("logging binary did not call ready: it closed descriptor 5 without a word")
}

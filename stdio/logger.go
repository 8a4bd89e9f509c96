package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"holdfast/internal/reaper"
)

const (
	// termLimit is how long a logger has between SIGTERM and SIGKILL (contract 7.6).
	termLimit = 12 * time.Second
	// killLimit is how long we wait for the kernel to end a killed logger.
	killLimit = 2 * time.Second
	// A logger that has ended is started again after a pause that doubles from the first to the
	// last of these, and is the first again once it has lived for as long as the last.
	firstRestart = 100 * time.Millisecond
	lastRestart  = 30 * time.Second
	// fruitless is how many times in a row a logger may end without having read anything until
	// the exit of its process no longer waits for it.
	fruitless = 3
)

// logger is a logging program: stdout's pipe is its descriptor 3, stderr's is 4, and by its
// descriptor 5 it says that it is ready (contract 7.6). It belongs to the shim, so that it
// outlives the manager, and ends after the process whose output it reads. We hold the read ends
// too, so what is in the pipes outlives the program, which is started again when it ends early.
type logger struct {
	cfg     *Config
	target  target
	in      [2]*os.File   // read ends of the pipes of stdout and stderr
	growth  [2]*elastic   // of the pipes, while nobody reads
	drained chan struct{} // the IO's: from then on it is not started again
	exited  chan struct{} // closed by hurry
	kept    chan struct{} // closed at the end of keep

	quit   context.Context // ends what waits when the logger shall stop
	cancel context.CancelFunc
	failed atomic.Int32 // how many times in a row it has ended without reading: see fruitless

	mu    sync.Mutex    // guards what follows; never held while waiting
	child *reaper.Child // the program of now, or the last one
}

// startLogger starts the logger that t names, waits until it is ready, and returns the write
// ends of its stdout and stderr pipes. They belong to the caller; a stream that is not wanted has
// none, and the logger reads its end at once. The logger is not started again once drained is
// closed.
func startLogger(
	ctx context.Context, cfg *Config, t target, want [2]bool, drained chan struct{},
) (_ *logger, out [2]*os.File, err error) {
	l := &logger{
		cfg: cfg, target: t, drained: drained,
		exited: make(chan struct{}), kept: make(chan struct{}),
	}
	l.quit, l.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			l.cancel()
			err = errors.Join(err, l.free(), closeFiles(out[:]))
		}
	}()
	for i, name := range names[1:] {
		r, w, err := pipe()
		if err != nil {
			return nil, out, err
		}
		l.in[i], out[i] = os.NewFile(uintptr(r), name), os.NewFile(uintptr(w), name)
		raw, err := l.in[i].SyscallConn()
		if err != nil {
			return nil, out, err
		}
		l.growth[i] = cfg.Room.track(raw)
		if want[i] {
			widen(w, cfg.Room.base())
		} else if err := closeFiles(out[i : i+1]); err != nil {
			return nil, out, err
		}
	}
	child, err := l.launch(ctx)
	if err != nil {
		return nil, out, err
	}
	go l.keep(child)
	return l, out, nil
}

// keep starts the logger again whenever it ends, as long as there may be something to read. It is
// a goroutine that ends then, or when the logger shall stop.
func (l *logger) keep(child *reaper.Child) {
	defer close(l.kept)
	hurry, before := l.exited, 0
	for pause := firstRestart; ; pause = min(2*pause, lastRestart) {
		began := time.Now()
		if child != nil {
			<-child.Done()
			l.judge(before)
		}
		if !l.needed() {
			return
		}
		l.present(false)
		if time.Since(began) >= lastRestart {
			pause = firstRestart
		}
		if child != nil {
			l.cfg.Log.Warn("logger has ended before its process; it is started again",
				"pid", child.Pid(), "status", child.Exit().Status, "in", pause)
		}
		select {
		case <-time.After(pause):
		case <-hurry:
			hurry, pause = nil, firstRestart
		case <-l.quit.Done():
		}
		if !l.needed() {
			return
		}
		before = l.held()
		var err error
		if child, err = l.launch(l.quit); err != nil && l.quit.Err() == nil {
			l.failed.Add(1)
			l.cfg.Log.Warn("logger not started again", "err", err)
		}
		l.present(err == nil)
	}
}

// judge counts the runs that were of no use: there is as much to read as before.
func (l *logger) judge(before int) {
	if l.held() >= before {
		l.failed.Add(1)
	} else {
		l.failed.Store(0)
	}
}

// needed tells whether a logger that has ended should be started again.
func (l *logger) needed() bool {
	return l.quit.Err() == nil && !isClosed(l.drained) && !l.finished()
}

// present tells whether somebody reads the pipes.
func (l *logger) present(there bool) {
	for _, e := range l.growth {
		e.attended(there)
	}
}

// hurry tells that the process has exited: a logger that is not there gets a few more chances,
// without a long pause, to read what there is. It may be called once.
func (l *logger) hurry() {
	l.failed.Store(0)
	close(l.exited)
}

// stop ends the logger: by SIGTERM, and after 12 s by SIGKILL, which its children get too. It
// says in the log what was not read. It may be called once.
func (l *logger) stop() error {
	l.cancel() // before the child is looked at: see begin
	child := l.current()
	err := l.end(child)
	if lost := l.held(); lost > 0 {
		l.cfg.Log.Warn("output lost that the logger has not read", "bytes", lost)
	}
	return errors.Join(err, l.free())
}

// free gives up the pipes.
func (l *logger) free() error {
	for _, e := range l.growth {
		e.release()
	}
	var errs []error
	for _, f := range l.in {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// end ends child, the last one.
func (l *logger) end(child *reaper.Child) error {
	if err := signal(child.Signal, syscall.SIGTERM); err != nil {
		return err
	}
	if closes(l.kept, termLimit) {
		return nil
	}
	if err := signal(child.SignalGroup, syscall.SIGKILL); err != nil {
		return err
	}
	if !closes(l.kept, killLimit) {
		return fmt.Errorf("logger with pid %d has not ended %v after SIGKILL", child.Pid(), killLimit)
	}
	return nil
}

// discard ends a child that was of no use.
func (l *logger) discard(child *reaper.Child) error {
	if err := signal(child.SignalGroup, syscall.SIGKILL); err != nil {
		return err
	}
	if !closes(child.Done(), killLimit) {
		return fmt.Errorf("logger with pid %d has not ended %v after SIGKILL", child.Pid(), killLimit)
	}
	return nil
}

// current returns the child of now, or the last one.
func (l *logger) current() *reaper.Child {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.child
}

// signal takes it for done if the process is gone.
func signal(send func(syscall.Signal) error, sig syscall.Signal) error {
	if err := send(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// closes waits up to limit for c to be closed.
func closes(c <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
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

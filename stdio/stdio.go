package stdio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// drainLimit is how long what the process has left behind may take to be passed on, counted
	// from its exit. 2 s lost logs (containerd 71f5d16aa), and CRI gives Delete 10 s in all.
	drainLimit = 10 * time.Second
	// cutLimit is how long Close waits for relays that were told to end. They do so at once
	// unless the kernel holds one, in a write to a dead disk for example.
	cutLimit = 2 * time.Second
)

// Config describes the streams of one process.
type Config struct {
	// Stdin, Stdout and Stderr are the strings of the request: empty, a path, or a URI with the
	// scheme fifo, file, binary or binary-v2. With a terminal Stderr is ignored.
	Stdin, Stdout, Stderr string
	// Terminal is for a process with a console: Attach is called instead of Start.
	Terminal bool
	// UID and GID own the pipes that the process holds.
	UID, GID int
	// ID and Namespace are told to loggers: CONTAINER_ID and CONTAINER_NAMESPACE.
	ID, Namespace string
	// Direct allows to hand the process the client's FIFO itself: for an init process without
	// a terminal and without an SELinux label. Its output cannot be cut while somebody holds it.
	Direct bool
	// LoggerDirs are where loggers may come from, and then they have to be root's alone; nil: they
	// may come from anywhere. What does not comply is errdefs.ErrPermissionDenied.
	LoggerDirs []string
	// Room is what the FIFOs of the process's container may take up; nil: they never grow.
	Room *Room
	// Log is for what nobody waits for; nil drops it.
	Log *slog.Logger
}

// IO is the streams of one process, from before the process begins until after it has gone:
//
//	Open ── Files ── Start ──┐
//	Open ─────────── Attach ─┴─ Exited ── Drained ── Close
//
// Close is allowed in any state; CloseStdin and Resize in any state too. All methods may be
// called concurrently.
type IO struct {
	cfg     Config
	drained chan struct{}  // closed by settle, or by Close
	gone    chan struct{}  // closed by Close: nobody need wait for anything any more
	tails   sync.WaitGroup // what goes on after the drain: see farewell
	closing sync.Once      // runs close
	closed  error          // what close returned

	mu      sync.Mutex // guards what follows; never held while waiting
	state   state
	exited  time.Time   // when Exited was called
	files   [3]*os.File // what the process holds, until Start
	relays  []*relay    // of stdin, stdout and stderr, as far as they are relayed
	outputs int         // who still passes on output: relays, after them loggers
	behind  bool        // it is the loggers' turn
	keeper  int         // stdin's FIFO, held open for reading and writing until CloseStdin; or -1
	holds   []*hold     // FIFOs that the process writes to itself, held so until it exits
	loggers []*logger
	master  *end // the console; set by Attach, released by the relays
	size    *unix.Winsize
}

type state int

const (
	opened  state = iota // the far ends are open
	started              // the process holds its ends, and relays run
	closed               // nothing is left
)

// Open opens the far ends of the streams and starts loggers. It does not wait for a client, but
// for loggers to be ready, up to 10 s and no longer than ctx. Clients' FIFOs have to exist; log
// files are made. A string that makes no sense, or names what is not there, is
// errdefs.ErrInvalidArgument. After an error nothing is left open.
func Open(ctx context.Context, cfg Config) (*IO, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &IO{cfg: cfg, keeper: -1, drained: make(chan struct{}), gone: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Files returns what the process is to hold as its descriptors 0, 1 and 2; nil stands for
// /dev/null. With a terminal all are nil. They belong to the IO and are closed by Start.
func (s *IO) Files() (stdin, stdout, stderr *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[0], s.files[1], s.files[2]
}

// Start is called when the runtime has handed the files to the process: it closes our copies, so
// that the streams end when the process lets go of them, and begins to relay.
func (s *IO) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != opened || s.cfg.Terminal {
		return fmt.Errorf("cannot start streams: they are started or closed, or those of a terminal: %w",
			errdefs.ErrFailedPrecondition)
	}
	err := closeFiles(s.files[:])
	s.launch()
	return err
}

// Attach is Start for a terminal. It takes master, the console's master side, and closes it once
// the process has exited and its output is passed on. On an error it closes it at once.
func (s *IO) Attach(master *os.File) error {
	console, err := newConsole(master)
	if err != nil {
		return err
	}
	defer console.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != opened || !s.cfg.Terminal {
		return fmt.Errorf("cannot attach console: streams are started or closed, or have no terminal: %w",
			errdefs.ErrFailedPrecondition)
	}
	if s.size != nil {
		if err := console.resize(s.size); err != nil {
			return err
		}
	}
	for _, r := range s.relays {
		if r.input {
			r.dst = console.share()
		} else {
			r.src = console.share()
		}
	}
	s.master = console
	s.launch()
	return nil
}

// launch starts the relays. Called with mu held.
func (s *IO) launch() {
	s.state = started
	for _, r := range s.relays {
		if !r.input {
			s.outputs++
			if !s.exited.IsZero() {
				r.drain(s.exited.Add(drainLimit))
			}
		}
		go r.run(s.ended, s.gone)
	}
	s.settle()
}

// ended is told by each relay that it has ended.
func (s *IO) ended(r *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.input {
		if s.keeper < 0 && s.cfg.Terminal && s.exited.IsZero() {
			s.hangUp()
		}
		s.dropKeeper()
		return
	}
	s.outputs--
	s.settle()
}

// hangUp is called when the input of a console has ended, by CloseStdin and by all its clients. A
// terminal without a keyboard hangs up, or the shell of an exec would outlive the client that it
// was for (contract 7.5); but what the process has said by then is passed on. Called with mu held.
func (s *IO) hangUp() {
	for _, r := range s.relays {
		if !r.input {
			r.hangUp(time.Now().Add(drainLimit))
		}
	}
}

// settle declares the output drained once the process is gone and no relay of output is left.
// Nobody needs input then. Called with mu held.
func (s *IO) settle() {
	if s.state != started || s.exited.IsZero() {
		return
	}
	s.letGo()
	if s.outputs == 0 && !s.behind {
		s.behind = true
		s.followLoggers()
	}
	if s.outputs > 0 || isClosed(s.drained) {
		return
	}
	s.dropKeeper()
	for _, r := range s.relays {
		r.cut()
	}
	close(s.drained)
}

// followLoggers waits, in the background, for those that have not read everything yet. Called
// with mu held.
func (s *IO) followLoggers() {
	limit := s.exited.Add(drainLimit)
	for _, l := range s.loggers {
		s.outputs++
		s.tails.Go(func() {
			l.catchUp(limit, s.gone)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.outputs--
			s.settle()
		})
	}
}

// CloseStdin lets the process's stdin end once all clients have closed their ends of it and
// what they have written is delivered. It may be called in any state, and again. A terminal hangs
// up then, as soon as the process has had nothing to say for a second.
func (s *IO) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropKeeper()
	return nil
}

// dropKeeper gives up the writer that keeps stdin's FIFO from ending. Called with mu held.
func (s *IO) dropKeeper() {
	if s.keeper >= 0 {
		unix.Close(s.keeper) //nolint:errcheck // nothing was written to it
		s.keeper = -1
	}
}

// Resize sets the size of the console, in columns and rows: of the coming one if it is not there
// yet. Without a terminal, and after the end of the console, it does nothing.
func (s *IO) Resize(width, height uint16) error {
	s.mu.Lock()
	size := &unix.Winsize{Col: width, Row: height}
	s.size = size
	master := s.master
	s.mu.Unlock()
	if master == nil {
		return nil
	}
	return master.resize(size)
}

// Exited is called when the process has been reaped: a hang-up of its console is the end of it
// now, and what it has left behind is passed on for 10 s more before it is cut.
func (s *IO) Exited() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exited.IsZero() {
		return
	}
	s.exited = time.Now()
	for _, l := range s.loggers {
		l.hurry()
	}
	if s.state != started {
		return // launch or Close will see to it
	}
	for _, r := range s.relays {
		if !r.input {
			r.drain(s.exited.Add(drainLimit))
		}
	}
	s.settle()
}

// Drained returns a channel that is closed when the process has exited and all its output has
// been passed on, or has been cut. Passed on is what a FIFO, a file, or a logger has taken.
func (s *IO) Drained() <-chan struct{} { return s.drained }

// Logged tells whether a logging process takes the output. Whoever announces the exit of the
// process should wait for Drained then: nerdctl's logger stops reading once it knows of the exit
// (managers.md, section 5).
func (s *IO) Logged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.loggers) > 0
}

// Close cuts what is left, stops the loggers and frees everything. It waits no longer than a
// stubborn logger is given: 12 s from SIGTERM to SIGKILL. An error says what is left behind.
// A second Close waits for the first and returns the same.
func (s *IO) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *IO) close() error {
	s.mu.Lock()
	running := s.state == started
	s.state = closed
	close(s.gone)
	errs := []error{closeFiles(s.files[:])}
	s.dropKeeper()
	s.letGo()
	for _, r := range s.relays {
		if running {
			r.cut()
		} else {
			r.release()
		}
	}
	s.mu.Unlock()
	s.tails.Wait()
	if running {
		errs = append(errs, s.join())
	}
	if !isClosed(s.drained) {
		close(s.drained)
	}
	errs = append(errs, s.stopLoggers())
	return errors.Join(errs...)
}

// join waits for the relays to end.
func (s *IO) join() error {
	timer := time.NewTimer(cutLimit)
	defer timer.Stop()
	for _, r := range s.relays {
		select {
		case <-r.done:
		case <-timer.C:
			return fmt.Errorf("relay of %s has not ended within %v; the kernel holds it",
				r.name, cutLimit)
		}
	}
	return nil
}

// stopLoggers stops them all at the same time.
func (s *IO) stopLoggers() error {
	errs := make([]error, len(s.loggers))
	var wg sync.WaitGroup
	for i, l := range s.loggers {
		wg.Go(func() { errs[i] = l.stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

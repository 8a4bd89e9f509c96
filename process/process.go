package process

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"holdfast/internal/reaper"
	"holdfast/stdio"
)

// process is what init and exec processes have in common: a turn, a state, an exit.
type process struct {
	name  string // for messages: «task c1» or «exec e1 of task c1»
	steps *table
	// turn holds one token while nobody may change the process. The Go runtime serves those who
	// wait for a channel in the order of their coming.
	turn   chan struct{}
	waited func(op Op, began time.Time) // told of each wait for the turn that is over; may be nil
	log    *slog.Logger
	done   chan struct{} // closed by finish: the process has an exit, or will never have one

	mu     sync.Mutex // guards what follows
	state  State
	shown  State
	child  *reaper.Child // nil before the start
	pid    int           // of child; kept after its exit
	exit   reaper.Exit
	ended  bool   // done is closed
	holder Turn   // the zero Turn while nobody has it
	asked  uint64 // one bit for each signal that a client has had sent
	io     *stdio.IO
	size   [2]uint16 // the last Resize that came before io was there
	resize bool
	eof    bool // CloseStdin came before io was there
}

func newProcess(name string, steps *table, log *slog.Logger) *process {
	return &process{
		name: name, steps: steps, log: log, turn: make(chan struct{}, 1), done: make(chan struct{}),
		state: Created, shown: Created,
	}
}

// take waits for the turn, or for ctx to end. It says so, once, if it waits for long.
func (p *process) take(ctx context.Context, op Op) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	default:
	}
	began := time.Now()
	late := time.AfterFunc(patience, func() {
		p.log.Warn("an operation waits for another one", "on", p.name, "op", op.String(), "for", p.holds().String(),
			"so far", patience)
	})
	defer late.Stop()
	select {
	case p.turn <- struct{}{}:
		if p.waited != nil {
			p.waited(op, began)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %v of %s: %w", p.holds(), p.name, ctx.Err())
	}
}

// holds returns what has the turn.
func (p *process) holds() Op {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holder.Op
}

func (p *process) give() {
	p.mu.Lock()
	p.holder = Turn{}
	p.mu.Unlock()
	<-p.turn
}

// do is the only place where a state changes. It takes the turn, looks op up, runs run, which
// may be slow, and if that succeeds changes the state and runs commit, which logs the change.
// ctx bounds only the wait for the turn. run and commit may be nil.
func (p *process) do(ctx context.Context, op Op, run func() error, commit func()) error {
	if err := p.take(ctx, op); err != nil {
		return err
	}
	defer p.give()
	from := p.hold(op)
	next := p.steps[from][op]
	if next.to == 0 {
		return refuse(p.name, from, op)
	}
	if next.via != 0 {
		p.show(next.via)
	}
	if run != nil {
		if err := run(); err != nil {
			p.set(orElse(next.fail, from))
			return err
		}
	}
	p.set(next.to)
	if commit != nil {
		commit()
	}
	return nil
}

func orElse(s, other State) State {
	if s != 0 {
		return s
	}
	return other
}

func (p *process) current() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// hold notes for what the turn is taken, and returns the state.
func (p *process) hold(op Op) State {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holder = Turn{Op: op, Since: time.Now()}
	return p.state
}

// set changes the state; the caller holds the turn.
func (p *process) set(s State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.shown = s, s
}

// show changes what State shows and nothing else.
func (p *process) show(s State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown = s
}

// allow refuses op unless the state allows it just now. It is for what needs no turn.
func (p *process) allow(op Op) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown == Pausing && op == Exec {
		return refuse(p.name, p.shown, op)
	}
	if p.steps[p.state][op].to == 0 {
		return refuse(p.name, p.state, op)
	}
	return nil
}

// born keeps the child and the stdio of a started process.
func (p *process) born(child *reaper.Child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.child, p.pid = child, child.Pid()
}

// attach makes io the one that Resize and CloseStdin reach, and hands on what came before it.
func (p *process) attach(io *stdio.IO) error {
	p.mu.Lock()
	p.io = io
	size, resize, eof := p.size, p.resize, p.eof
	p.mu.Unlock()
	if resize {
		if err := io.Resize(size[0], size[1]); err != nil {
			return err
		}
	}
	if eof {
		return io.CloseStdin()
	}
	return nil
}

// ask notes that a client wants sig to be sent. It comes before the sending, whose result may be seen
// at once.
func (p *process) ask(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked |= 1 << uint(sig) // nothing, for a number that is no signal's
}

// wasAsked tells whether a client has had sig sent.
func (p *process) wasAsked(sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked&(1<<uint(sig)) != 0
}

// finish keeps the exit and frees the waiters; only the first call counts.
func (p *process) finish(exit reaper.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	p.exit = exit
	close(p.done)
}

// Info is what a process looks like from outside.
type Info struct {
	ID       string // exec id, or container id for the init process
	Bundle   string
	Pid      int // 0 before the start; kept after the exit
	State    State
	Stdin    string
	Stdout   string
	Stderr   string
	Terminal bool
	Exit     reaper.Exit // zero before the exit
	Turn     Turn        // zero while nothing changes the process
}

// Turn is the operation that is changing a process.
type Turn struct {
	Op    Op
	Since time.Time
}

// info returns what the process itself knows of Info.
func (p *process) info() Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Info{Pid: p.pid, State: p.shown, Exit: p.exit, Turn: p.holder}
}

// wait blocks until the process has ended or ctx has.
func (p *process) wait(ctx context.Context) (reaper.Exit, error) {
	select {
	case <-p.done:
		return p.info().Exit, nil
	case <-ctx.Done():
		return reaper.Exit{}, fmt.Errorf("wait for %s: %w", p.name, ctx.Err())
	}
}

// alive returns the child, or nil if there is none yet.
func (p *process) alive() *reaper.Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.child
}

// resizeTo changes the size of the console, now or when there is one.
func (p *process) resizeTo(width, height uint16) error {
	if err := p.allow(Resize); err != nil {
		return err
	}
	p.mu.Lock()
	io := p.io
	if io == nil {
		p.size, p.resize = [2]uint16{width, height}, true
	}
	p.mu.Unlock()
	if io == nil {
		return nil
	}
	return io.Resize(width, height)
}

// sizeBefore returns the size that was asked for before there was a console, if one was.
func (p *process) sizeBefore() (width, height uint16, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size[0], p.size[1], p.resize
}

// closeStdin ends the input, now or as soon as there is one.
func (p *process) closeStdin() error {
	p.mu.Lock()
	io := p.io
	p.eof = true
	p.mu.Unlock()
	if io == nil {
		return nil
	}
	return io.CloseStdin()
}

// stdio returns the streams, or nil if there are none yet.
func (p *process) stdio() *stdio.IO {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.io
}

package soak

import (
	"fmt"
	"sync"
	"time"

	"holdfast/internal/client"
)

// A life is one container from its creation to its deletion. Its id is never used again.
type life struct {
	id     string
	bundle string
	pod    *pod
	left   sync.Once // what follows its deletion: two may know of that, if the answer to its creation was lost

	mu      sync.Mutex // guards what follows
	procs   []*process // the init process first; execs that were deleted are not here
	gone    []*process // the deleted ones
	streams map[string]*stream
	deleted bool
}

// A process is what is known of an init or exec process from answers.
type process struct {
	exec    string // "" for the init process
	started bool   // a start was answered with success
	pid     uint32
	exit    *exit // once any answer has told it
}

type exit struct {
	status uint32
	at     time.Time
}

func (e exit) String() string {
	return fmt.Sprintf("status %d at %s", e.status, e.at.Format("15:04:05.000000000"))
}

// pick returns a process of the life, or one that does not exist. The init process comes often.
func (l *life) pick(n int) *process {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case n%5 < 2 || len(l.procs) == 0:
		return l.init()
	case n%29 == 0:
		return &process{exec: "ghost"}
	}
	return l.procs[n%len(l.procs)]
}

// init returns the init process. The caller holds the lock.
func (l *life) init() *process {
	if len(l.procs) > 0 && l.procs[0].exec == "" {
		return l.procs[0]
	}
	return &process{}
}

// add notes a process, unless there are enough.
func (l *life) add(exec string) *process {
	p := &process{exec: exec}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.procs = append(l.procs, p)
	return p
}

// full says whether the life has as many execs as it should have at a time.
func (l *life) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.procs) > 6
}

// forget notes the deletion of a process.
func (l *life) forget(p *process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, known := range l.procs {
		if known == p {
			l.procs = append(l.procs[:i:i], l.procs[i+1:]...)
			l.gone = append(l.gone, p)
		}
	}
	if p.exec == "" {
		l.deleted = true
	}
}

// all returns every process that the life has had.
func (l *life) all() []*process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(append([]*process(nil), l.procs...), l.gone...)
}

// known returns what has been told of the exit of a process so far, and whether it was deleted.
func (l *life) known(p *process) (*exit, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return p.exit, l.deleted
}

// fresh says whether a process is not known to have been started.
func (l *life) fresh(p *process) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !p.started && p.exit == nil
}

func (l *life) started(p *process, pid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.started, p.pid = true, pid
}

// exited notes what an answer has told of an exit. It returns an error if another has told
// something else.
func (l *life) exited(p *process, told exit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.exit == nil {
		p.exit = &told
		return nil
	}
	if p.exit.status != told.status || !p.exit.at.Equal(told.at) {
		return fmt.Errorf("%s %s has ended with %v, said an answer before, now %v", l.id, p.exec, *p.exit, told)
	}
	return nil
}

// A stream is the client's side of the streams of a process, which is closed and opened again.
type stream struct {
	mu     sync.Mutex
	dir    string
	name   string
	config client.IOConfig
	io     *client.IO // nil while nobody reads
	closed bool

	stdin, stdout, stderr string // the paths
}

func openStream(dir, name string, cfg client.IOConfig) (*stream, error) {
	io, err := client.OpenIO(dir, name, cfg)
	if err != nil {
		return nil, err
	}
	return &stream{
		dir: dir, name: name, config: cfg, io: io, stdin: io.Stdin, stdout: io.Stdout, stderr: io.Stderr,
	}, nil
}

// hangUp closes the reader.
func (s *stream) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.io != nil {
		s.io.Close()
		s.io = nil
	}
}

// comeBack opens a reader again, unless the process is gone.
func (s *stream) comeBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.io != nil || s.closed {
		return nil
	}
	io, err := client.OpenIO(s.dir, s.name, s.config)
	if err != nil {
		return err
	}
	s.io = io
	return nil
}

// end closes the reader for good.
func (s *stream) end() {
	s.hangUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// attach notes the streams of a process.
func (l *life) attach(exec string, s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams[exec] = s
}

// readers returns the streams that the life has now.
func (l *life) readers() []*stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*stream
	for _, s := range l.streams {
		all = append(all, s)
	}
	return all
}

// detach ends the reading of the streams of a process.
func (l *life) detach(exec string) {
	l.mu.Lock()
	s := l.streams[exec]
	delete(l.streams, exec)
	l.mu.Unlock()
	if s != nil {
		s.end()
	}
}

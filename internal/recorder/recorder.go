package recorder

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"holdfast/internal/facts"
)

// size is how many steps are remembered: what a pod of ten containers does in a minute.
const size = 256

// Recorder remembers the last 256 steps and spans. A nil one remembers none. It may be used
// concurrently and never waits.
type Recorder struct {
	mu   sync.Mutex // guards what follows
	ring []entry
	next int // where the oldest is, once ring is full
}

type entry struct {
	at         int64 // ns since 1970; half the size of a time.Time
	took       int64 // ns, of a span
	task, exec string
	what       string // of a span
	kind       Kind   // 0: a step
	step       Step
	failed     bool
}

// Reach remembers that an operation on a process has reached step. exec is "" for the init process;
// both are "" for what concerns the daemon as a whole.
func (r *Recorder) Reach(step Step, task, exec string) {
	r.add(entry{at: time.Now().UnixNano(), task: task, exec: exec, step: step})
	pause(step)
}

// Span is something that took a while, for a process of a container.
type Span struct {
	Kind       Kind
	What       string // see Kind; best a constant
	Task, Exec string // Exec is "" for the init process
	Began      time.Time
	Failed     bool
}

// Passed remembers a span that ends now.
func (r *Recorder) Passed(s Span) {
	r.add(entry{
		at: s.Began.UnixNano(), took: time.Since(s.Began).Nanoseconds(), task: s.Task, exec: s.Exec,
		what: s.What, kind: s.Kind, failed: s.Failed,
	})
}

func (r *Recorder) add(e entry) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < size {
		r.ring = append(r.ring, e)
		return
	}
	r.ring[r.next] = e
	r.next = (r.next + 1) % size
}

// Gather moves the names in what is remembered to memory of their own. Each came with a request, and keeps a
// piece of memory among much that is garbage by now.
func (r *Recorder) Gather() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]string{}
	moved := func(name string) string {
		if _, ok := names[name]; !ok {
			names[name] = strings.Clone(name)
		}
		return names[name]
	}
	for i := range r.ring {
		e := &r.ring[i]
		e.task, e.exec = moved(e.task), moved(e.exec)
	}
}

// Steps returns the steps and spans in the order in which they ended, oldest first.
func (r *Recorder) Steps() []facts.Step {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	entries := append(append([]entry{}, r.ring[r.next:]...), r.ring[:r.next]...)
	r.mu.Unlock()
	steps := make([]facts.Step, len(entries))
	for i, e := range entries {
		s := facts.Step{At: time.Unix(0, e.at).UTC(), ID: e.task, Exec: e.exec}
		if e.kind == 0 {
			label := labels[e.step]
			s.Op, s.N, s.What = label.Op, label.N, label.What
		} else {
			s.Op, s.What, s.Took, s.Failed = kinds[e.kind], e.what, time.Duration(e.took), e.failed
		}
		steps[i] = s
	}
	return steps
}

// String returns the steps and spans, one in a line: the time, the task and the exec, and what was
// done. It is for people.
func (r *Recorder) String() string {
	var text strings.Builder
	for _, s := range r.Steps() {
		name := s.ID
		if s.Exec != "" {
			name += "/" + s.Exec
		}
		fmt.Fprintf(&text, "%s %s %s\n", s.At.Format("15:04:05.000000"), name, s)
	}
	return text.String()
}

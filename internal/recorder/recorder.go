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

// Recorder remembers the last 256 steps. A nil one remembers none. It may be used concurrently and
// never waits.
type Recorder struct {
	mu   sync.Mutex // guards what follows
	ring []entry
	next int // where the oldest is, once ring is full
}

type entry struct {
	at         int64 // ns since 1970; half the size of a time.Time
	task, exec string
	step       Step
}

// Reach remembers that an operation on a process has reached step. exec is "" for the init process;
// both are "" for what concerns the daemon as a whole.
func (r *Recorder) Reach(step Step, task, exec string) {
	r.add(entry{at: time.Now().UnixNano(), task: task, exec: exec, step: step})
	pause(step)
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

// Steps returns the steps, oldest first.
func (r *Recorder) Steps() []facts.Step {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	entries := append(append([]entry{}, r.ring[r.next:]...), r.ring[:r.next]...)
	r.mu.Unlock()
	steps := make([]facts.Step, len(entries))
	for i, e := range entries {
		label := labels[e.step]
		steps[i] = facts.Step{At: time.Unix(0, e.at).UTC(), ID: e.task, Exec: e.exec, Op: label.Op, N: label.N, What: label.What}
	}
	return steps
}

// String returns the steps, oldest first, one in a line: the time, the task and the exec, and the
// step. It is for people.
func (r *Recorder) String() string {
	var text strings.Builder
	for _, s := range r.Steps() {
		name := s.ID
		if s.Exec != "" {
			name += "/" + s.Exec
		}
		fmt.Fprintf(&text, "%s %s %s-%d %s\n", s.At.Format("15:04:05.000000"), name, s.Op, s.N, s.What)
	}
	return text.String()
}

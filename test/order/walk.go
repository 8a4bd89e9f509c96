package order

import (
	"fmt"
	"sort"
	"time"

	"github.com/containerd/containerd/api/events"

	"holdfast/internal/client"
)

// state is what a process has gone through, as far as the history tells.
type state int

const (
	absent  state = iota // not created, not added
	unknown              // from before a history that begins in the middle
	created              // for an exec process: added
	running
	exited
	deleted
)

func (s state) String() string {
	return [...]string{"absent", "unknown", "created", "running", "exited", "deleted"}[s]
}

// process is one life of an init or exec process.
type process struct {
	state  state
	pid    uint32 // 0: not known yet
	exits  bool   // an exit was seen in this life
	status uint32 // of that exit
	at     time.Time
}

// task is one life of a container.
type task struct {
	process    // init
	execs      map[string]*process
	paused     bool
	pauseKnown bool
	beforehand bool // began before the history: its exec processes may have, too
	sent       map[string]time.Time
}

// walk goes through a history once. It reports what breaks a rule and then believes the event, so
// that one mistake is reported once.
type walk struct {
	tasks          map[string]*task
	namespace      string
	beginsInMiddle bool
	execsDeleted   bool
	compacted      bool

	index      int
	current    client.Event
	violations []error
}

func (w *walk) report(rule Rule, format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	if w.current.Message != nil {
		detail = describe(w.current) + ": " + detail
	}
	w.violations = append(w.violations, &Violation{Rule: rule, Index: w.index, Detail: detail})
}

func (w *walk) event(ev client.Event) {
	if !w.envelope(ev) {
		return
	}
	t := w.task(ev.Task())
	w.time(t, ev)
	switch m := ev.Message.(type) {
	case *events.TaskCreate:
		w.create(t, m)
		return
	case *events.TaskExit:
		w.exit(t, ev, m)
		return
	}
	again := ev.Topic == "/tasks/delete" && ev.Exec() == "" // which has a rule of its own
	if t.state == absent || t.state == deleted && !again {
		w.report(CreatedFirst, "the task is %s", t.state)
		return
	}
	switch m := ev.Message.(type) {
	case *events.TaskStart:
		w.start(t, m)
	case *events.TaskDelete:
		w.delete(t, ev, m)
	case *events.TaskExecAdded:
		w.added(t, ev.Exec())
	case *events.TaskExecStarted:
		w.execStarted(t, ev.Exec(), m.GetPid())
	case *events.TaskPaused:
		w.pause(t, true)
	case *events.TaskResumed:
		w.pause(t, false)
	case *events.TaskOOM:
		if t.state == exited {
			w.report(OOMFirst, "the init process has exited")
		}
	}
}

// envelope checks what can be told from the event alone. It reports whether the rest of the rules
// can be applied to it.
func (w *walk) envelope(ev client.Event) bool {
	switch {
	case ev.Namespace == "":
		w.report(Namespaced, "none")
	case w.namespace != "" && w.namespace != ev.Namespace:
		w.report(Namespaced, "%s after %s", ev.Namespace, w.namespace)
	default:
		w.namespace = ev.Namespace
	}
	if want := client.Topic(ev.Message); want == "" || want != ev.Topic {
		w.report(TopicFits, "payload %T belongs to %q", ev.Message, want)
		return want != ""
	}
	return w.identified(ev)
}

// identified checks the ids. The exit of an init process names it by the id of the task, its
// deletion by no id; clients tell init and exec by just that (contract section 8.1).
func (w *walk) identified(ev client.Event) bool {
	ok := ev.Task() != ""
	switch m := ev.Message.(type) {
	case *events.TaskExit:
		ok = ok && m.GetID() != ""
	case *events.TaskDelete:
		ok = ok && m.GetID() != m.GetContainerID()
	case *events.TaskExecAdded:
		ok = ok && ev.Exec() != ""
	case *events.TaskExecStarted:
		ok = ok && ev.Exec() != ""
	}
	if !ok {
		w.report(Identified, "task %q, payload %v", ev.Task(), ev.Message)
	}
	return ok
}

// task returns the task of that id, and notes it if it is new.
func (w *walk) task(id string) *task {
	t, ok := w.tasks[id]
	if !ok {
		t = newTask()
		if w.beginsInMiddle {
			t.state, t.beforehand, t.pauseKnown = unknown, true, false
		}
		w.tasks[id] = t
	}
	return t
}

func newTask() *task {
	return &task{execs: map[string]*process{}, pauseKnown: true, sent: map[string]time.Time{}}
}

// exec returns the exec process of that id, and notes it if it is new.
func (t *task) exec(id string) *process {
	p, ok := t.execs[id]
	if !ok {
		p = &process{}
		if t.beforehand {
			p.state = unknown
		}
		t.execs[id] = p
	}
	return p
}

// of returns the process that ev is about.
func (t *task) of(ev client.Event) *process {
	if exec := ev.Exec(); exec != "" {
		return t.exec(exec)
	}
	return &t.process
}

func (w *walk) time(t *task, ev client.Event) {
	last := t.sent[ev.Exec()]
	switch {
	case ev.Sent.IsZero():
		w.report(Timed, "none")
	case ev.Sent.Before(last):
		w.report(Timed, "%s earlier than the event before", last.Sub(ev.Sent))
	}
	t.sent[ev.Exec()] = ev.Sent
}

// pid checks the pid of an event of p. A task that is to be restored has none before its start,
// an exec process none before its own.
func (w *walk) pid(p *process, pid uint32, mayBeNone bool) {
	if pid != p.pid && p.pid != 0 || pid == 0 && !mayBeNone {
		w.report(PidsAgree, "pid %d, known pid %d", pid, p.pid)
	}
	p.pid = pid
}

// end checks what is left when nothing more will come.
func (w *walk) end() {
	w.current = client.Event{}
	for _, id := range sortedKeys(w.tasks) {
		t := w.tasks[id]
		if t.state == running {
			w.report(ExitedAtAll, "task %s still runs", id)
		}
		for _, exec := range sortedKeys(t.execs) {
			if t.execs[exec].state == running {
				w.report(ExitedAtAll, "exec %s of task %s still runs", exec, id)
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

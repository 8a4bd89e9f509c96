package order

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"holdfast/internal/client"
)

// died is when everything dies in these histories.
var died = timestamppb.New(time.Unix(1_800_000_000, 0))

// The words of a history: what happens to task c and its exec process e, whose pids are 10 and 20.
func create() proto.Message { return &events.TaskCreate{ContainerID: "c", Pid: 10} }
func start() proto.Message  { return &events.TaskStart{ContainerID: "c", Pid: 10} }
func added() proto.Message  { return &events.TaskExecAdded{ContainerID: "c", ExecID: "e"} }
func paused() proto.Message { return &events.TaskPaused{ContainerID: "c"} }
func resume() proto.Message { return &events.TaskResumed{ContainerID: "c"} }
func oom() proto.Message    { return &events.TaskOOM{ContainerID: "c"} }

func begun() proto.Message {
	return &events.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: 20}
}

func exit() *events.TaskExit {
	return &events.TaskExit{ContainerID: "c", ID: "c", Pid: 10, ExitStatus: 1, ExitedAt: died}
}

func remove() *events.TaskDelete {
	return &events.TaskDelete{ContainerID: "c", Pid: 10, ExitStatus: 1, ExitedAt: died}
}

func execExit() *events.TaskExit {
	return &events.TaskExit{ContainerID: "c", ID: "e", Pid: 20, ExitStatus: 2, ExitedAt: died}
}

func execRemove() *events.TaskDelete {
	return &events.TaskDelete{ContainerID: "c", ID: "e", Pid: 20, ExitStatus: 2, ExitedAt: died}
}

func with[M proto.Message](m M, edit func(M)) M { edit(m); return m }

func history(messages ...proto.Message) []client.Event { return Events(messages...) }

var good = []struct {
	name    string
	events  []client.Event
	options []Option
}{
	{"nothing", nil, nil},
	{"a whole life", history(create(), start(), exit(), remove()), nil},
	{"a life with an exec", history(create(), start(), added(), begun(), execExit(), execRemove(), exit(), remove()), nil},
	{"an exec that is not deleted by itself", history(create(), start(), added(), begun(), execExit(), exit(), remove()), nil},
	{"an exec that is deleted after init's exit", history(create(), start(), added(), begun(), execExit(), exit(), execRemove(), remove()), nil},
	{"an exec that is never started", history(create(), start(), added(), exit(), remove()), nil},
	{"an exec that is deleted without a start", history(create(), start(), added(),
		&events.TaskDelete{ContainerID: "c", ID: "e"}, exit(), remove()), nil},
	{"an exec id used again", history(create(), start(), added(), begun(), execExit(), execRemove(),
		added(), with(&events.TaskExecStarted{ContainerID: "c", ExecID: "e"}, func(m *events.TaskExecStarted) { m.Pid = 21 }),
		with(execExit(), func(m *events.TaskExit) { m.Pid = 21 }), exit(), remove()), nil},
	{"killed before its start", history(create(), exit(), remove()), nil},
	{"deleted before its start", history(create(), &events.TaskDelete{ContainerID: "c", Pid: 10}), nil},
	{"not deleted yet", history(create(), start(), exit()), nil},
	{"an id used again", history(create(), start(), exit(), remove(), create(), start(), exit(), remove()), nil},
	{"paused and resumed, twice", history(create(), start(), paused(), resume(), paused(), resume(), exit()), nil},
	{"killed while paused", history(create(), start(), paused(), exit(), remove()), nil},
	{"out of memory, twice", history(create(), start(), oom(), oom(), exit(), remove()), nil},
	{"out of memory before its start", history(create(), oom(), exit(), remove()), nil},
	{"restored", history(&events.TaskCreate{ContainerID: "c", Checkpoint: "/image"}, start(), exit(), remove()), nil},
	{"checkpointed", history(create(), start(), &events.TaskCheckpointed{ContainerID: "c"}, exit(), remove()), nil},
	{"two tasks, interleaved", history(create(), &events.TaskCreate{ContainerID: "d", Pid: 30}, start(),
		&events.TaskStart{ContainerID: "d", Pid: 30}, exit(),
		&events.TaskExit{ContainerID: "d", ID: "d", Pid: 30, ExitedAt: died}, remove()), nil},

	{"begun before the log", history(added(), begun(), execExit(), exit(), remove()), []Option{BeginsInMiddle}},
	{"exec begun before the log", history(execExit(), execRemove(), exit(), remove()), []Option{BeginsInMiddle}},
	{"only a deletion", history(remove(), create(), start(), exit()), []Option{BeginsInMiddle}},
	{"paused before the log", history(resume(), paused(), exit()), []Option{BeginsInMiddle}},
	{"execs that are told of by their exits", history(create(), start(), execExit(), added(), execExit(), exit(), remove()), []Option{Compacted}},
	{"still running", history(create(), start(), added(), begun()), []Option{EndsInMiddle}},
	{"a piece of a log", history(oom(), begun()), []Option{BeginsInMiddle, EndsInMiddle}},
}

func TestGoodHistoriesPass(t *testing.T) {
	for _, row := range good {
		t.Run(row.name, func(t *testing.T) {
			if err := Check(row.events, row.options...); err != nil {
				t.Errorf("%v\n%s", err, History(row.events))
			}
		})
	}
}

var bad = []struct {
	name    string
	breaks  Rule
	events  []client.Event
	options []Option
}{
	{"no namespace", Namespaced, edited(history(create(), exit()), func(e *client.Event) { e.Namespace = "" }), nil},
	{"another namespace", Namespaced, edited(history(create(), exit()), func(e *client.Event) { e.Namespace = "other" }), nil},
	{"no time", Timed, edited(history(create(), exit()), func(e *client.Event) { e.Sent = time.Time{} }), nil},
	{"time goes back", Timed, edited(history(create(), exit()), func(e *client.Event) { e.Sent = e.Sent.Add(-1) }), nil},
	{"topic of another type", TopicFits, edited(history(create(), exit()), func(e *client.Event) { e.Topic = "/tasks/delete" }), nil},
	{"payload of no known type", TopicFits, edited(history(create(), exit()), func(e *client.Event) { e.Message = &anypb.Any{} }), nil},
	{"no payload", TopicFits, edited(history(create(), exit()), func(e *client.Event) { e.Message = nil }), nil},

	{"no task id", Identified, history(create(), &events.TaskExit{ID: "c", Pid: 10, ExitedAt: died}), nil},
	{"exit without id", Identified, history(create(), with(exit(), func(m *events.TaskExit) { m.ID = "" })), nil},
	{"deletion of init with an id", Identified, history(create(), exit(), with(remove(), func(m *events.TaskDelete) { m.ID = "c" })), nil},
	{"added without an exec id", Identified, history(create(), &events.TaskExecAdded{ContainerID: "c"}), nil},
	{"exec started without an exec id", Identified, history(create(), &events.TaskExecStarted{ContainerID: "c", Pid: 20}), nil},
	{"exec id of the task", Identified, history(create(), &events.TaskExecAdded{ContainerID: "c", ExecID: "c"}), nil},

	{"start without create", CreatedFirst, history(start()), nil},
	{"start before create", CreatedFirst, history(start(), create(), exit()), nil},
	{"created twice", CreatedFirst, history(create(), create(), exit()), nil},
	{"created while running", CreatedFirst, history(create(), start(), create(), exit()), nil},
	{"oom of no task", CreatedFirst, history(oom()), nil},
	{"checkpoint of no task", CreatedFirst, history(&events.TaskCheckpointed{ContainerID: "c"}), nil},
	{"start after the deletion", CreatedFirst, history(create(), exit(), remove(), start()), nil},
	{"exec after the deletion", CreatedFirst, history(create(), exit(), remove(), added()), nil},
	{"exec deleted after its task", CreatedFirst, history(create(), start(), added(), begun(), execExit(), exit(), remove(), execRemove()), nil},
	{"exit of an unknown exec", ExitedNotFail, history(create(), start(), execExit(), exit(), remove()), nil},
	{"an exec that is only added exits after init", ExecsExitFirst, history(create(), start(), added(), exit(), execExit(), remove()), []Option{Compacted}},
	{"an unknown init process exits, though compacted", CreatedFirst, history(exit(), remove()), []Option{Compacted}},
	{"create known to be missing", CreatedFirst, history(remove(), start(), exit()), []Option{BeginsInMiddle}},

	{"started twice", StartedOnce, history(create(), start(), start(), exit()), nil},
	{"started after its exit", StartedOnce, history(create(), exit(), start(), remove()), nil},

	{"exec added twice", AddedOnce, history(create(), start(), added(), added(), exit()), nil},
	{"exec added while it runs", AddedOnce, history(create(), start(), added(), begun(), added(), exit()), nil},
	{"exec added after init's exit", AddedOnce, history(create(), start(), exit(), added()), nil},

	{"exec not added", ExecStarted, history(create(), start(), begun(), execExit(), exit()), nil},
	{"exec added too late", ExecStarted, history(create(), start(), begun(), added(), exit()), nil},
	{"exec started twice", ExecStarted, history(create(), start(), added(), begun(), begun(), execExit(), exit()), nil},
	{"exec started after init's exit", ExecStarted, history(create(), start(), added(), exit(), begun()), []Option{EndsInMiddle}},
	{"exec started after its exit", ExecStarted, history(create(), start(), added(), begun(), execExit(), begun(), exit()), nil},

	{"two exits", ExitedOnce, history(create(), start(), exit(), exit(), remove()), nil},
	{"two exits of an exec", ExitedOnce, history(create(), start(), added(), begun(), execExit(), execExit(), exit()), nil},
	{"a second exit after the deletion", ExitedOnce, history(create(), start(), exit(), remove(), exit()), nil},

	{"exit of a task whose create failed", ExitedNotFail, history(exit()), nil},
	{"exit of an exec whose start failed", ExitedNotFail, history(create(), start(), added(), execExit(), exit()), nil},
	{"exit of an exec that was never added", ExitedNotFail, history(create(), start(), execExit(), exit()), nil},

	{"no exit", ExitedAtAll, history(create(), start()), nil},
	{"no exit of an exec", ExitedAtAll, history(create(), start(), added(), begun(), exit()), nil},
	{"no exit before the id is used again", DeletedLast, history(create(), start(), remove(), create(), exit()), nil},

	{"init exits before its exec", ExecsExitFirst, history(create(), start(), added(), begun(), exit(), execExit()), nil},
	{"init exits before an exec from before", ExecsExitFirst, history(exit(), execExit()), []Option{BeginsInMiddle}},
	{"init exits and its exec does not", ExecsExitFirst, history(create(), start(), added(), begun(), exit()), []Option{EndsInMiddle}},

	{"oom after the exit", OOMFirst, history(create(), start(), exit(), oom(), remove()), nil},

	{"paused before its start", PausedRunning, history(create(), paused(), start(), exit()), nil},
	{"paused twice", PausedRunning, history(create(), start(), paused(), paused(), exit()), nil},
	{"resumed without a pause", PausedRunning, history(create(), start(), resume(), exit()), nil},
	{"resumed after its exit", PausedRunning, history(create(), start(), paused(), exit(), resume()), nil},

	{"deleted while running", DeletedLast, history(create(), start(), remove()), nil},
	{"deleted before its exit", DeletedLast, history(create(), start(), remove(), exit()), nil},
	{"exit after the deletion of a created task", DeletedLast, history(create(), remove(), exit()), nil},
	{"deleted twice", DeletedLast, history(create(), start(), exit(), remove(), remove()), nil},
	{"exec deleted while running", DeletedLast, history(create(), start(), added(), begun(), execRemove(), execExit(), exit()), nil},
	{"exec deleted twice", DeletedLast, history(create(), start(), added(), begun(), execExit(), execRemove(), execRemove(), exit()), nil},

	{"deletion with another status", DeleteAgrees, history(create(), start(), exit(), with(remove(), func(m *events.TaskDelete) { m.ExitStatus = 0 })), nil},
	{"deletion with another time", DeleteAgrees, history(create(), start(), exit(), with(remove(), func(m *events.TaskDelete) { m.ExitedAt = nil })), nil},
	{"exec deletion with another status", DeleteAgrees, history(create(), start(), added(), begun(), execExit(),
		with(execRemove(), func(m *events.TaskDelete) { m.ExitStatus = 0 }), exit()), nil},

	{"create without pid", PidsAgree, history(&events.TaskCreate{ContainerID: "c"}, exit()), nil},
	{"started as another pid", PidsAgree, history(create(), &events.TaskStart{ContainerID: "c", Pid: 11}, with(exit(), func(m *events.TaskExit) { m.Pid = 11 })), nil},
	{"exit of another pid", PidsAgree, history(create(), start(), with(exit(), func(m *events.TaskExit) { m.Pid = 11 })), nil},
	{"exit without pid", PidsAgree, history(exit0()), []Option{BeginsInMiddle}},
	{"deletion of another pid", PidsAgree, history(create(), start(), exit(), with(remove(), func(m *events.TaskDelete) { m.Pid = 11 })), nil},
	{"deletion without pid", PidsAgree, history(create(), start(), exit(), with(remove(), func(m *events.TaskDelete) { m.Pid = 0 })), nil},
	{"exec started without pid", PidsAgree, history(create(), start(), added(), &events.TaskExecStarted{ContainerID: "c", ExecID: "e"},
		execExit(), exit()), nil},
	{"exec exit of another pid", PidsAgree, history(create(), start(), added(), begun(), with(execExit(), func(m *events.TaskExit) { m.Pid = 10 }), exit()), nil},

	{"exit without time", ExitTimed, history(create(), start(), with(exit(), func(m *events.TaskExit) { m.ExitedAt = nil })), nil},
	{"exit in 1970", ExitTimed, history(create(), start(), with(exit(), func(m *events.TaskExit) { m.ExitedAt = &timestamppb.Timestamp{} })), nil},
}

func exit0() *events.TaskExit { return with(exit(), func(m *events.TaskExit) { m.Pid = 0 }) }

// edited returns the history with its last event changed.
func edited(h []client.Event, edit func(*client.Event)) []client.Event {
	edit(&h[len(h)-1])
	return h
}

// broken returns the rules that err says are broken.
func broken(t *testing.T, err error) map[Rule]bool {
	t.Helper()
	rules := map[Rule]bool{}
	if err == nil {
		return rules
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error is no list: %v", err)
	}
	for _, err := range joined.Unwrap() {
		var v *Violation
		if !errors.As(err, &v) {
			t.Fatalf("not a violation: %v", err)
		}
		rules[v.Rule] = true
	}
	return rules
}

func TestBadHistoriesBreakTheirRule(t *testing.T) {
	for _, row := range bad {
		t.Run(row.name, func(t *testing.T) {
			err := Check(row.events, row.options...)
			if !broken(t, err)[row.breaks] {
				t.Errorf("rule %q holds; error %v\n%s", row.breaks, err, History(row.events))
			}
		})
	}
}

func TestEveryRuleHasABadHistory(t *testing.T) {
	covered := map[Rule]bool{}
	for _, row := range bad {
		covered[row.breaks] = true
	}
	for _, rule := range rules {
		if !covered[rule] {
			t.Errorf("no history breaks the rule %q", rule)
		}
		delete(covered, rule)
	}
	for rule := range covered {
		t.Errorf("not in the list of rules: %q", rule)
	}
}

// recorder stands in for a test that is expected to fail.
type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.text += strings.TrimSpace(fmt.Sprintf(format, args...))
}

func TestVerifyShowsRuleAndHistory(t *testing.T) {
	r := &recorder{TB: t}
	Verify(r, history(create(), start(), exit(), oom(), remove()))
	for _, want := range []string{"event 4", string(OOMFirst), "5 ", "/tasks/delete c pid 10 status 1"} {
		if !strings.Contains(r.text, want) {
			t.Errorf("%q is not in the message:\n%s", want, r.text)
		}
	}
	r.text = ""
	Verify(r, history(create(), start(), exit(), remove()))
	if r.text != "" {
		t.Errorf("a good history fails: %s", r.text)
	}
}

// FuzzCheck puts the words together at random: no history may crash the checker, and none that
// passes may have a task with two exits in one life.
func FuzzCheck(f *testing.F) {
	words := []func() proto.Message{
		create, start, added, begun, paused, resume, oom,
		func() proto.Message { return exit() }, func() proto.Message { return remove() },
		func() proto.Message { return execExit() }, func() proto.Message { return execRemove() },
	}
	f.Add([]byte{0, 1, 7, 8}, false)
	f.Add([]byte{0, 1, 2, 3, 9, 10, 7, 8, 0, 1, 4, 5, 6, 7}, false)
	f.Add([]byte{7, 7, 9, 3}, true)
	f.Fuzz(func(t *testing.T, script []byte, middle bool) {
		var h []proto.Message
		exits := 0
		twice := false
		for _, b := range script {
			m := words[int(b)%len(words)]()
			h = append(h, m)
			switch m := m.(type) {
			case *events.TaskCreate:
				exits = 0
			case *events.TaskExit:
				if m.ID == "c" {
					exits++
				}
				twice = twice || exits > 1
			}
		}
		var options []Option
		if middle {
			options = []Option{BeginsInMiddle, EndsInMiddle}
		}
		if err := Check(history(h...), options...); err == nil && twice {
			t.Errorf("two exits in one life pass:\n%s", History(history(h...)))
		}
	})
}

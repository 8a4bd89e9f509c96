package shim

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"

	"holdfast/internal/api"
	"holdfast/internal/client"
	"holdfast/internal/wire"
	"holdfast/test/twin"
)

// A manager that asks for execs without end and takes no event costs memory for the exits alone, and
// gets them all, in order, in the end.
func TestManyEventsAreCompacted(t *testing.T) {
	path := filepath.Join(shortDir(t), "e.sock")
	l := newTestLog(t, path) // nobody is there yet
	const execs = 3 * crowd
	var want []wire.Message
	say := func(e wire.Message, stays bool) {
		l.Append(e)
		if stays {
			want = append(want, e)
		}
	}
	say(&api.TaskCreate{ContainerID: "c1"}, true)
	for i := range execs {
		id := fmt.Sprint("e", i%7) // ids are used again
		say(&api.TaskExecAdded{ContainerID: "c1", ExecID: id}, false)
		say(&api.TaskExecStarted{ContainerID: "c1", ExecID: id, Pid: 5}, false)
		if i%1000 == 0 {
			say(&api.TaskPaused{ContainerID: "c1"}, false)
			say(&api.TaskOOM{ContainerID: "c1"}, true)
			say(&api.TaskResumed{ContainerID: "c1"}, false)
		}
		say(&api.TaskExit{ContainerID: "c1", ID: id, Pid: 5, ExitStatus: uint32(i % 256)}, true)
	}
	if n := l.Backlog(); n > len(want)+2*crowd {
		t.Errorf("%d events wait, of which %d have to", n, len(want))
	}
	server, err := client.ListenEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	l.Append(&api.TaskDelete{ContainerID: "last"})
	waitFor(t, server, "last")
	var got []proto.Message
	for _, e := range server.All() {
		switch e.Message.(type) {
		case *events.TaskExit, *events.TaskOOM, *events.TaskCreate:
			got = append(got, e.Message)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("got %d exits and the like, want %d", len(got), len(want))
	}
	for i := range want {
		if want := twin.Of(t, want[i]); !proto.Equal(got[i], want) {
			t.Fatalf("number %d is %v, want %v", i, got[i], want)
		}
	}
	if lost := closeLog(t, l, time.Second); lost != 0 {
		t.Errorf("%d are lost", lost)
	}
}

// Whatever is left out, what stays makes sense: no start of an exec after its exit, no resume without
// a pause, and the first event is what it was.
func TestWhatStaysMakesSense(t *testing.T) {
	for range 200 {
		l := &EventLog{address: "nowhere", wake: make(chan struct{}, 1)}
		state := map[string]string{}
		paused := false
		l.Append(&api.TaskExecStarted{ContainerID: "c", ExecID: "first"})
		for range rand.IntN(100) {
			id := fmt.Sprint(rand.IntN(4))
			switch {
			case rand.IntN(10) == 0 && paused:
				l.Append(&api.TaskResumed{ContainerID: "c"})
				paused = false
			case rand.IntN(10) == 0 && !paused:
				l.Append(&api.TaskPaused{ContainerID: "c"})
				paused = true
			case state[id] == "":
				l.Append(&api.TaskExecAdded{ContainerID: "c", ExecID: id})
				state[id] = "added"
			case state[id] == "added":
				l.Append(&api.TaskExecStarted{ContainerID: "c", ExecID: id})
				state[id] = "started"
			default:
				l.Append(&api.TaskExit{ContainerID: "c", ID: id})
				state[id] = ""
			}
		}
		before, after := l.queue, compact(l.queue)
		if after[0] != before[0] {
			t.Fatal("the first event is another one")
		}
		was := map[string]string{}
		pauses := 0
		for i, e := range after[1:] {
			switch m := decode(e).(type) {
			case *api.TaskExecAdded:
				was[m.ExecID] = "added"
			case *api.TaskExecStarted:
				if was[m.ExecID] != "added" {
					t.Fatalf("event %d: %v after %q", i, m, was[m.ExecID])
				}
				was[m.ExecID] = "started"
			case *api.TaskExit:
				if was[m.ID] != "" {
					t.Fatalf("event %d: the birth of %v is there", i, m)
				}
			case *api.TaskPaused:
				pauses++
			case *api.TaskResumed:
				t.Fatalf("event %d: a pause that is over", i)
			}
		}
		for id, now := range state {
			if now != was[id] {
				t.Fatalf("exec %s is %q, and seems to be %q", id, now, was[id])
			}
		}
		if paused != (pauses == 1) {
			t.Fatalf("paused: %v, and there are %d pauses", paused, pauses)
		}
	}
}

// An exec that was deleted unstarted has no exit; that of the next one with its id is not its own.
func TestOnlyExecsThatHaveExitedAreLeftOut(t *testing.T) {
	l := &EventLog{address: "nowhere", wake: make(chan struct{}, 1)}
	l.Append(&api.TaskCreate{ContainerID: "c"})
	l.Append(&api.TaskExecAdded{ContainerID: "c", ExecID: "e"})
	l.Append(&api.TaskExecAdded{ContainerID: "c", ExecID: "e"})
	l.Append(&api.TaskExecStarted{ContainerID: "c", ExecID: "e"})
	l.Append(&api.TaskExit{ContainerID: "c", ID: "e"})
	var topics []string
	for _, e := range compact(l.queue) {
		topics = append(topics, e.GetTopic())
	}
	want := []string{"/tasks/create", "/tasks/exec-added", "/tasks/exit"}
	if !slices.Equal(topics, want) {
		t.Errorf("left are %v, want %v", topics, want)
	}
}

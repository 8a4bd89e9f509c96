package model

import (
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// event is one of those that tell of a container.
type event uint8

const (
	createEvent event = iota + 1
	startEvent
	addedEvent
	execStartEvent
	execExitEvent
	oomEvent
	exitEvent
	deleteEvent
)

var eventNames = [...]string{
	createEvent: "create", startEvent: "start", addedEvent: "exec-added", execStartEvent: "exec-started",
	execExitEvent: "exec-exit", oomEvent: "oom", exitEvent: "exit", deleteEvent: "delete",
}

// history is a few events, the oldest first. What is behind the first zero is empty.
type history [12]event

func (h history) events() []event { return h[:slices.Index(h[:], 0)] }

func (h history) has(e event) bool { return slices.Contains(h[:], e) }

func (h history) String() string {
	var names []string
	for _, e := range h.events() {
		names = append(names, eventNames[e])
	}
	return strings.Join(names, " ")
}

func (h *history) push(e event) { h[slices.Index(h[:], 0)] = e }

func (h *history) remove(i int) event {
	e := h[i]
	copy(h[i:], h[i+1:])
	return e
}

// client returns the events as package order takes them.
func (h history) client() []client.Event {
	const pid, execPid = 10, 20
	at := timestamppb.New(time.Unix(1_800_000_000, 0))
	all := map[event]proto.Message{
		createEvent:    &events.TaskCreate{ContainerID: "c", Pid: pid},
		startEvent:     &events.TaskStart{ContainerID: "c", Pid: pid},
		addedEvent:     &events.TaskExecAdded{ContainerID: "c", ExecID: "e"},
		execStartEvent: &events.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: execPid},
		execExitEvent:  &events.TaskExit{ContainerID: "c", ID: "e", Pid: execPid, ExitedAt: at},
		oomEvent:       &events.TaskOOM{ContainerID: "c"},
		exitEvent:      &events.TaskExit{ContainerID: "c", ID: "c", Pid: pid, ExitedAt: at},
		deleteEvent:    &events.TaskDelete{ContainerID: "c", Pid: pid, ExitedAt: at},
	}
	var messages []proto.Message
	for _, e := range h.events() {
		messages = append(messages, all[e])
	}
	return order.Events(messages...)
}

// logged tells whether an event is in the log, or was.
func (s *state) logged(e event) bool { return s.queue.has(e) || s.wire.has(e) }

// sender is the one sender of the event log. An attempt that fails changes nothing: the same event
// is tried again.
func (m *moves) sender() {
	s := m.now
	if s.queue[0] == 0 {
		return
	}
	send := func(i int) {
		m.will("the manager takes "+eventNames[s.queue[i]], func(s *state) { s.wire.push(s.queue.remove(i)) })
	}
	send(0)
	if s.queue[1] != 0 && !m.heeds(OldestIsSentFirst) {
		send(1)
	}
	if !m.heeds(EventIsKeptUntilItIsTaken) {
		m.may("an attempt fails: "+eventNames[s.queue[0]]+" is dropped", func(s *state) { s.queue.remove(0) })
	}
}

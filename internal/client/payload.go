package client

import (
	"strings"
	"time"

	"github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// payloads is every event a shim may send: its topic and an empty message of its type
// (contract section 8.1). Read only.
var payloads = []struct {
	topic string
	empty proto.Message
}{
	{"/tasks/create", &events.TaskCreate{}},
	{"/tasks/start", &events.TaskStart{}},
	{"/tasks/exit", &events.TaskExit{}},
	{"/tasks/delete", &events.TaskDelete{}},
	{"/tasks/exec-added", &events.TaskExecAdded{}},
	{"/tasks/exec-started", &events.TaskExecStarted{}},
	{"/tasks/paused", &events.TaskPaused{}},
	{"/tasks/resumed", &events.TaskResumed{}},
	{"/tasks/checkpointed", &events.TaskCheckpointed{}},
	{"/tasks/oom", &events.TaskOOM{}},
}

// Topic returns the topic under which messages of the type of m are published, or "" if m is
// not an event of a shim.
func Topic(m proto.Message) string {
	if m == nil {
		return ""
	}
	for _, p := range payloads {
		if p.empty.ProtoReflect().Descriptor().FullName() == m.ProtoReflect().Descriptor().FullName() {
			return p.topic
		}
	}
	return ""
}

// decode returns the message inside a. An unknown type, or bytes that are not of the type
// claimed, leave a as it is: what arrived is for the test to judge.
func decode(a *anypb.Any) proto.Message {
	name := a.GetTypeUrl()
	name = name[strings.LastIndexByte(name, '/')+1:]
	for _, p := range payloads {
		if string(p.empty.ProtoReflect().Descriptor().FullName()) != name {
			continue
		}
		m := p.empty.ProtoReflect().New().Interface()
		if proto.Unmarshal(a.GetValue(), m) == nil {
			return m
		}
	}
	return a
}

// Event is one event as it arrived.
type Event struct {
	At        time.Time     // when it arrived here
	Sent      time.Time     // when the shim says that it happened; zero if it did not say
	Namespace string        // of containerd
	Topic     string        // such as /tasks/exit
	Message   proto.Message // of package events; *anypb.Any if it could not be decoded
	Outcome   Outcome       // what the sender was told
}

// Task returns the id of the container that e is about, or "" if its payload is unknown.
func (e Event) Task() string {
	if m, ok := e.Message.(interface{ GetContainerID() string }); ok {
		return m.GetContainerID()
	}
	return ""
}

// Exec returns the id of the exec process that e is about, or "" if it is about the container
// or its init process. An exit names the init process by the id of the container and a deletion
// by nothing; both are "" here.
func (e Event) Exec() string {
	id := ""
	switch m := e.Message.(type) {
	case interface{ GetExecID() string }:
		id = m.GetExecID()
	case interface{ GetID() string }:
		id = m.GetID()
	}
	if id == e.Task() {
		return ""
	}
	return id
}

// Pid returns the pid in e, or 0 if events of its kind have none.
func (e Event) Pid() uint32 {
	if m, ok := e.Message.(interface{ GetPid() uint32 }); ok {
		return m.GetPid()
	}
	return 0
}

// Exit returns the exit status and time in e; ok is false if events of its kind have none.
func (e Event) Exit() (status uint32, at time.Time, ok bool) {
	m, ok := e.Message.(interface{ GetExitStatus() uint32 })
	if !ok {
		return 0, time.Time{}, false
	}
	switch m := e.Message.(type) {
	case *events.TaskExit:
		at = Time(m.GetExitedAt())
	case *events.TaskDelete:
		at = Time(m.GetExitedAt())
	}
	return m.GetExitStatus(), at, true
}

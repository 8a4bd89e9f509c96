package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"holdfast/internal/api"
	"holdfast/internal/facts"
	"holdfast/process"
)

// inspector answers the debug service. It takes no turn, and no lock that is held for long: it has to
// answer when nothing else does.
type inspector struct {
	service  *Service
	events   *EventLog
	requests *requests
	began    time.Time
}

func newInspector(service *Service, events *EventLog) *inspector {
	return &inspector{service: service, events: events, requests: newRequests(), began: time.Now()}
}

// register makes server answer the debug service.
func (i *inspector) register(server *ttrpc.Server) {
	server.Register(facts.Service, map[string]ttrpc.Method{
		facts.MethodFacts: method(func(context.Context, *api.Any) (*api.Any, error) {
			text, err := json.Marshal(i.facts())
			return &api.Any{TypeUrl: facts.TypeURL(facts.MethodFacts), Value: text}, err
		}),
		facts.MethodStacks: method(func(context.Context, *api.Any) (*api.Any, error) {
			return &api.Any{TypeUrl: facts.TypeURL(facts.MethodStacks), Value: []byte(stacks())}, nil
		}),
		facts.MethodEvents: method(func(ctx context.Context, seen *api.Any) (*api.Any, error) {
			revision, err := strconv.ParseUint(string(seen.Value), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("cannot follow the events: because the revision %.20q is no number: %w", seen.Value, errdefs.ErrInvalidArgument)
			}
			f, err := i.events.follow(ctx, revision)
			if err != nil {
				return nil, err
			}
			text, err := json.Marshal(f)
			return &api.Any{TypeUrl: facts.TypeURL(facts.MethodEvents), Value: text}, err
		}),
	})
}

func (i *inspector) facts() facts.Facts {
	f := facts.Facts{
		Version: buildVersion().GetVersion(), Pid: os.Getpid(), Namespace: i.service.namespace, Began: i.began,
		Requests: i.requests.list(), Containers: i.service.describe(), Steps: i.service.steps.Steps(),
	}
	f.Events, f.Revision = i.events.events()
	return f
}

// requests are those under way. Safe for concurrent use.
type requests struct {
	mu  sync.Mutex // guards now, and what is in it
	now map[*facts.Request]struct{}
}

func newRequests() *requests { return &requests{now: map[*facts.Request]struct{}{}} }

// begin enters a request, which end takes away.
func (r *requests) begin(method string, at time.Time) *facts.Request {
	request := &facts.Request{Op: opOf(method), Since: at}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now[request] = struct{}{}
	return request
}

func (r *requests) end(request *facts.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.now, request)
}

// name notes whom a request is about, as soon as it has been decoded.
func (r *requests) name(request *facts.Request, message any) {
	about, ok := message.(interface{ GetID() string })
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	request.ID = about.GetID()
	if exec, ok := message.(interface{ GetExecID() string }); ok {
		request.Exec = exec.GetExecID()
	}
}

// list returns the requests of the task service.
func (r *requests) list() []facts.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]facts.Request, 0, len(r.now))
	for request := range r.now {
		if !slices.Contains([]string{facts.MethodFacts, facts.MethodStacks, facts.MethodEvents}, request.Op) {
			all = append(all, *request)
		}
	}
	return all
}

// describe tells of all containers. It does not wait for those that are being created.
func (s *Service) describe() []facts.Container {
	s.mu.Lock()
	entries := make(map[string]*entry, len(s.containers))
	for id, e := range s.containers {
		copied := *e
		entries[id] = &copied
	}
	s.mu.Unlock()
	all := make([]facts.Container, 0, len(entries))
	for id, e := range entries {
		all = append(all, e.describe(id))
	}
	return all
}

func (e *entry) describe(id string) facts.Container {
	c := facts.Container{ID: id}
	if e.container == nil {
		return c
	}
	info, err := e.container.State("")
	if err != nil {
		return c // it has been deleted
	}
	c.Bundle, c.State, c.Pid, c.Turn = info.Bundle, fmt.Sprint(info.State), info.Pid, turn(info)
	for _, exec := range e.container.Execs() {
		if info, err := e.container.State(exec); err == nil {
			c.Execs = append(c.Execs, facts.Process{ID: exec, State: fmt.Sprint(info.State), Pid: info.Pid, Turn: turn(info)})
		}
	}
	return c
}

// turn is what changes a process, or nil.
func turn(info process.Info) *facts.Turn {
	if info.Turn.Op == 0 {
		return nil
	}
	return &facts.Turn{Op: info.Turn.Op.String(), Since: info.Turn.Since}
}

// events returns the last that the manager has taken and all that wait for it, the oldest first, and the
// revision of that.
func (l *EventLog) events() (events []facts.Event, revision uint64) {
	l.mu.Lock()
	revision = l.revision
	all := append(append([]taken{}, l.taken[l.oldest:]...), l.taken[:l.oldest]...)
	for _, e := range l.queue {
		all = append(all, taken{Envelope: e})
	}
	l.mu.Unlock()
	events = make([]facts.Event, len(all))
	for i, e := range all {
		events[i] = facts.Event{
			Topic: e.GetTopic(), At: e.GetTimestamp().AsTime(), Taken: e.at, Refused: e.refused,
			Type: e.GetEvent().GetTypeUrl(), Value: e.GetEvent().GetValue(),
		}
	}
	return events, revision
}

package shim

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// topics are containerd's names for its events (contract 8.1).
var topics = map[string]string{
	name(&events.TaskCreate{}):       "/tasks/create",
	name(&events.TaskStart{}):        "/tasks/start",
	name(&events.TaskExit{}):         "/tasks/exit",
	name(&events.TaskDelete{}):       "/tasks/delete",
	name(&events.TaskExecAdded{}):    "/tasks/exec-added",
	name(&events.TaskExecStarted{}):  "/tasks/exec-started",
	name(&events.TaskPaused{}):       "/tasks/paused",
	name(&events.TaskResumed{}):      "/tasks/resumed",
	name(&events.TaskCheckpointed{}): "/tasks/checkpointed",
	name(&events.TaskOOM{}):          "/tasks/oom",
}

func name(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

const (
	namespaceKey = "containerd-namespace-ttrpc" // metadata of every call (contract 3.1)
	dialLimit    = 5 * time.Second
	forwardLimit = 5 * time.Second // of one attempt, as containerd's own shim has it
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// EventLog holds the events of all containers of the shim until the manager has taken them. There
// is one queue and one sender: the head is tried until it is taken and nothing overtakes it, so
// the order of Append is the order on the wire, however long the manager is away. Nothing is
// dropped, except what the manager refuses as invalid, and what is left at Close.
type EventLog struct {
	address   string
	namespace string
	log       *slog.Logger
	wake      chan struct{} // holds a token when there may be something to do
	quit      chan struct{} // closed by Close when its time is up
	done      chan struct{} // closed by the sender

	mu      sync.Mutex // guards what follows
	queue   []*types.Envelope
	closing bool
}

// NewEventLog returns a log that sends to the manager's ttrpc socket at address. Without an
// address there is nobody to tell, and events are dropped (CRI-O: managers.md).
func NewEventLog(address, namespace string, log *slog.Logger) *EventLog {
	l := &EventLog{
		address: strings.TrimPrefix(address, "unix://"), namespace: namespace, log: log,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if l.address == "" {
		log.Debug("no address for events: they are dropped")
		close(l.done)
		return l
	}
	go l.send() // ends after Close
	return l
}

// Append adds an event of containerd.events. It never blocks.
func (l *EventLog) Append(event proto.Message) {
	if l.address == "" {
		return
	}
	value, err := proto.Marshal(event)
	if err != nil {
		// Only a string that is not UTF-8 can do this, and all ids are checked.
		l.log.Error("event not encoded", "event", name(event), "err", err)
		return
	}
	envelope := &types.Envelope{
		Timestamp: timestamppb.Now(),
		Namespace: l.namespace,
		Topic:     topics[name(event)],
		Event:     &anypb.Any{TypeUrl: name(event), Value: value},
	}
	l.mu.Lock()
	l.queue = append(l.queue, envelope)
	l.mu.Unlock()
	l.poke()
}

func (l *EventLog) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Backlog returns how many events wait for the manager.
func (l *EventLog) Backlog() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Close sends what waits, as long as ctx lasts, and returns how many events were lost; each is in
// the log. Nothing may be appended afterwards.
func (l *EventLog) Close(ctx context.Context) int {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.poke()
	select {
	case <-l.done:
	case <-ctx.Done():
		close(l.quit)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.queue {
		l.log.Error("event lost: the manager was away until the end", "topic", e.GetTopic(), "at", e.GetTimestamp().AsTime(), "event", fmt.Sprintf("%x", e.GetEvent().GetValue()))
	}
	return len(l.queue)
}

// head returns the oldest event, or nil; last tells that no other will come.
func (l *EventLog) head() (e *types.Envelope, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil, l.closing
	}
	return l.queue[0], false
}

func (l *EventLog) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue[0] = nil
	l.queue = l.queue[1:]
	if len(l.queue) == 0 {
		l.queue = nil // let go of the array
	}
}

// send is the one sender.
func (l *EventLog) send() {
	defer close(l.done)
	var to sink
	defer to.close()
	pause := firstPause
	for {
		e, last := l.head()
		switch {
		case last:
			return
		case e == nil:
			if !l.idle() {
				return
			}
			continue
		}
		err := to.forward(l.address, l.namespace, e)
		switch {
		case err == nil:
			pause = firstPause
			l.drop()
		case status.Code(err) == codes.InvalidArgument:
			l.log.Error("event refused by the manager", "topic", e.GetTopic(), "err", err)
			l.drop()
		default:
			l.log.Debug("event not sent yet", "topic", e.GetTopic(), "err", err)
			if !l.pause(pause) {
				return
			}
			pause = min(2*pause, longestPause)
		}
	}
}

// idle waits for an event, and returns false when the time of Close is up.
func (l *EventLog) idle() bool {
	select {
	case <-l.wake:
		return true
	case <-l.quit:
		return false
	}
}

// pause waits for d, and returns false when the time of Close is up.
func (l *EventLog) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.quit:
		return false
	}
}

// sink is the connection to the manager's events service, which is made when it is needed.
type sink struct {
	client *ttrpc.Client
}

// forward makes one attempt to hand over e, and a second one if the connection turns out to be an
// old one that the manager has closed meanwhile.
func (s *sink) forward(address, namespace string, e *types.Envelope) error {
	old := s.client != nil
	err := s.try(address, namespace, e)
	if err != nil && old && s.client == nil {
		err = s.try(address, namespace, e)
	}
	return err
}

func (s *sink) try(address, namespace string, e *types.Envelope) error {
	if s.client == nil {
		conn, err := net.DialTimeout("unix", address, dialLimit)
		if err != nil {
			return err
		}
		s.client = ttrpc.NewClient(conn)
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardLimit)
	defer cancel()
	// A peer that does not read leaves the client stuck in write(2), where it does not look at
	// the context; closing the connection frees it.
	client := s.client
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{namespaceKey: []string{namespace}})
	_, err := eventsapi.NewTTRPCEventsClient(client).Forward(ctx, &eventsapi.ForwardRequest{Envelope: e})
	if err != nil && !answered(err) {
		s.close()
	}
	return err
}

// answered tells that the manager itself has said err.
func answered(err error) bool {
	_, ok := status.FromError(err)
	return ok && status.Code(err) != codes.DeadlineExceeded
}

func (s *sink) close() {
	if s.client != nil {
		_ = s.client.Close() // there is nothing to lose in it
		s.client = nil
	}
}

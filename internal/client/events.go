package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	eventsService = "containerd.services.events.ttrpc.v1.Events"
	eventsMethod  = "Forward"
)

// Outcome is what becomes of an event that has arrived.
type Outcome int

const (
	Accepted Outcome = iota // recorded and answered, as a manager does when all is well
	Refused                 // answered with Unavailable
	Stalled                 // never answered; the connection stays open
	Dropped                 // the connection is closed instead of an answer
)

// Events is an events server, the one of containerd to which shims send theirs. It records every
// event in the order in which they come off the wire. Safe for concurrent use.
type Events struct {
	path    string
	serving sync.WaitGroup // the accept loop and one goroutine per connection; Close joins them

	mu       sync.Mutex // guards what follows
	listener *net.UnixListener
	conns    map[net.Conn]struct{}
	arrivals []Event
	changed  chan struct{} // closed and replaced when an event arrives
	fault    Outcome       // what meets the next events
	left     int           // how many more; negative: all
	closed   bool
}

// ListenEvents serves events on a unix socket at path, which it makes. The caller closes it.
func ListenEvents(path string) (*Events, error) {
	e := &Events{path: path, conns: map[net.Conn]struct{}{}, changed: make(chan struct{})}
	if err := e.Back(); err != nil {
		return nil, err
	}
	return e, nil
}

// Address returns the path of the socket, which is what TTRPC_ADDRESS holds.
func (e *Events) Address() string { return e.path }

// Count returns how many events have arrived, whatever became of them.
func (e *Events) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.arrivals)
}

// All returns the accepted events in the order of their arrival: what a manager would have seen.
func (e *Events) All() []Event {
	var accepted []Event
	for _, ev := range e.Arrivals() {
		if ev.Outcome == Accepted {
			accepted = append(accepted, ev)
		}
	}
	return accepted
}

// Arrivals returns every event in the order of arrival, whatever became of it. An event that its
// sender had to send again is here once per attempt.
func (e *Events) Arrivals() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event(nil), e.arrivals...)
}

// Wait returns the first accepted event that match approves of, past ones included. If ctx ends
// before, the error tells which events did arrive.
func (e *Events) Wait(ctx context.Context, match func(Event) bool) (Event, error) {
	return e.WaitArrival(ctx, func(ev Event) bool { return ev.Outcome == Accepted && match(ev) })
}

// WaitArrival is Wait for events of any outcome.
func (e *Events) WaitArrival(ctx context.Context, match func(Event) bool) (Event, error) {
	for next := 0; ; {
		e.mu.Lock()
		news, changed := e.arrivals[next:], e.changed
		e.mu.Unlock()
		for _, ev := range news {
			if match(ev) {
				return ev, nil
			}
		}
		next += len(news)
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("wait for event: %w; arrived so far: %s", ctx.Err(), e.summary())
		}
	}
}

// Exits matches the exit of a process of a task; exec is "" for the init process.
func Exits(task, exec string) func(Event) bool {
	return func(ev Event) bool {
		return ev.Topic == "/tasks/exit" && ev.Task() == task && ev.Exec() == exec
	}
}

// Deletes matches the deletion of a process of a task; exec is "" for the init process.
func Deletes(task, exec string) func(Event) bool {
	return func(ev Event) bool {
		return ev.Topic == "/tasks/delete" && ev.Task() == task && ev.Exec() == exec
	}
}

// Fault makes the next n events meet the given outcome; a negative n means all events until
// Fault is called again. Fault(Accepted, 0) ends an earlier fault. Events that have been stalled
// stay without an answer.
func (e *Events) Fault(o Outcome, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault, e.left = o, n
}

// Away stops serving and hangs up every connection. With socket set the socket file stays, so
// that connecting is refused, as after a crash of the manager; else it is gone, as after an
// orderly stop. Without effect if the server is away already.
func (e *Events) Away(socket bool) {
	e.mu.Lock()
	l := e.listener
	e.listener = nil
	conns := make([]net.Conn, 0, len(e.conns))
	for conn := range e.conns {
		conns = append(conns, conn)
	}
	e.mu.Unlock()

	if l != nil {
		l.SetUnlinkOnClose(!socket)
		l.Close()
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// Back serves again after Away, at the same path.
func (e *Events) Back() error {
	if err := removeSocket(e.path); err != nil {
		return fmt.Errorf("serve events: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: e.path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("serve events: %w", err)
	}
	if !e.install(l) {
		l.Close()
		return fmt.Errorf("serve events on %s: the server has been closed", e.path)
	}
	go e.accept(l)
	return nil
}

// install makes l the listener, and counts its accept loop, unless the server is closed.
func (e *Events) install(l *net.UnixListener) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.listener = l
	e.serving.Add(1)
	return true
}

// removeSocket removes what Away left. Anything but a socket nobody listens on is kept.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("%s is served by somebody else", path)
	}
	return os.Remove(path)
}

// Close stops serving, removes the socket and joins every goroutine of the server. The record
// stays readable.
func (e *Events) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.Away(false)
	e.serving.Wait()
}

// accept ends when l is closed.
func (e *Events) accept(l *net.UnixListener) {
	defer e.serving.Done()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if !e.admit(l, conn) {
			conn.Close()
			continue
		}
		go e.serve(conn)
	}
}

// admit registers conn unless the server has gone away since conn was accepted.
func (e *Events) admit(l *net.UnixListener, conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listener != l {
		return false
	}
	e.conns[conn] = struct{}{}
	e.serving.Add(1)
	return true
}

// serve ends when conn is closed by either side.
func (e *Events) serve(conn net.Conn) {
	defer e.serving.Done()
	defer e.forget(conn)
	r := bufio.NewReader(conn)
	for {
		stream, req, err := readRequest(r)
		if err != nil {
			return
		}
		outcome, resp := e.receive(req)
		switch outcome {
		case Stalled:
			continue
		case Dropped:
			return
		}
		if err := writeResponse(conn, stream, resp); err != nil {
			return
		}
	}
}

func (e *Events) forget(conn net.Conn) {
	conn.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, conn)
}

// receive records the event in req and returns what its sender is to be told.
func (e *Events) receive(req *ttrpc.Request) (Outcome, *ttrpc.Response) {
	if req.GetService() != eventsService || req.GetMethod() != eventsMethod {
		text := fmt.Sprintf("service %s method %s", req.GetService(), req.GetMethod())
		return Accepted, &ttrpc.Response{Status: status.New(codes.Unimplemented, text).Proto()}
	}
	forward := &eventsapi.ForwardRequest{}
	if err := proto.Unmarshal(req.GetPayload(), forward); err != nil {
		return Accepted, &ttrpc.Response{Status: status.New(codes.Internal, err.Error()).Proto()}
	}
	envelope := forward.GetEnvelope()
	outcome := e.record(Event{
		At:        time.Now(),
		Sent:      Time(envelope.GetTimestamp()),
		Namespace: envelope.GetNamespace(),
		Topic:     envelope.GetTopic(),
		Message:   decode(envelope.GetEvent()),
	})
	if outcome == Refused {
		text := "events are refused at the moment"
		return outcome, &ttrpc.Response{Status: status.New(codes.Unavailable, text).Proto()}
	}
	return outcome, &ttrpc.Response{} // an Empty is no bytes at all
}

// record appends ev, decides its outcome and wakes those who wait.
func (e *Events) record(ev Event) Outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left != 0 {
		ev.Outcome = e.fault
	}
	if e.left > 0 {
		e.left--
	}
	e.arrivals = append(e.arrivals, ev)
	close(e.changed)
	e.changed = make(chan struct{})
	return ev.Outcome
}

// summary names the events that have arrived, for the message of a test that waited in vain.
func (e *Events) summary() string {
	var names []string
	for _, ev := range e.Arrivals() {
		names = append(names, strings.Join(strings.Fields(ev.Topic+" "+ev.Task()+" "+ev.Exec()), " "))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Time returns the time in t; the zero time if t is missing or says so itself, as shims do for
// processes that have not exited (contract section 3.1).
func Time(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

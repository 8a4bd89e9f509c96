package shim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/api"
	"holdfast/internal/wire"
)

// topics are containerd's names for its events (contract 8.1).
var topics = map[string]string{
	(*api.TaskCreate)(nil).MessageName():       "/tasks/create",
	(*api.TaskStart)(nil).MessageName():        "/tasks/start",
	(*api.TaskExit)(nil).MessageName():         "/tasks/exit",
	(*api.TaskDelete)(nil).MessageName():       "/tasks/delete",
	(*api.TaskExecAdded)(nil).MessageName():    "/tasks/exec-added",
	(*api.TaskExecStarted)(nil).MessageName():  "/tasks/exec-started",
	(*api.TaskPaused)(nil).MessageName():       "/tasks/paused",
	(*api.TaskResumed)(nil).MessageName():      "/tasks/resumed",
	(*api.TaskCheckpointed)(nil).MessageName(): "/tasks/checkpointed",
	(*api.TaskOOM)(nil).MessageName():          "/tasks/oom",
}

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	// longOutage is how long events wait until the log says so.
	longOutage = 30 * time.Second
	// returnTime is how long after the manager's return its own subscribers may take to come back.
	// dockerd does not ask what it has missed: an exit that was sent 8 ms too early left its
	// container "Up" for ever (managers.md, surprise 2).
	returnTime = 2 * time.Second
	// seekTime is how long a manager that has connected to us may take to serve events.
	seekTime = time.Minute
)

// EventLog holds the events of all containers of the shim until the manager has taken them. There
// is one queue and one sender: the head is tried until it is taken and nothing overtakes it, so
// the order of Append is the order on the wire, however long the manager is away. Nothing is
// dropped, except what the manager refuses as invalid, what is left at Close, and of thousands of
// events what says nothing new: see compact.
//
// When the manager has been away, what waits is held back a little longer, until those who listen
// to the manager can have come back too.
type EventLog struct {
	address   string
	hold      time.Duration // returnTime, except in tests
	namespace string
	log       *slog.Logger
	wake      chan struct{} // holds a token when there may be something to do
	visits    chan struct{} // holds a token when somebody has connected to the shim
	hurry     chan struct{} // holds a token when the shim ends: no time to pause
	quit      chan struct{} // closed by Close when its time is up
	done      chan struct{} // closed by the sender

	// What follows is of the sender alone.
	since   time.Time // nothing has been handed over since then
	warned  bool      // that has been said
	hurried bool      // the shim ends
	seek    time.Time // until then it looks for a manager that is away, though nothing waits

	mu      sync.Mutex // guards what follows
	queue   []*api.Envelope
	crowd   int // when to compact the queue next; at least the constant of that name
	closing bool
	taken   []taken // the last by the manager, for who looks into the shim
	oldest  int     // in taken, once that is full

	revision  uint64        // how often queue or taken have changed
	changed   chan struct{} // closed when they do next; nil if nobody waits for that
	followers int           // who wait for that; one that has gone leaves changed behind
	parting   time.Time     // when those who wait are to be answered though something may change yet; zero: never
	followed  time.Time     // when somebody was last told what is new, and may ask again at once
	parted    chan struct{} // closed when somebody has been told for the last time
}

// taken is an event that the manager has answered to.
type taken struct {
	*api.Envelope
	at      time.Time
	refused bool
}

// maxTaken is how many of them are kept.
const maxTaken = 64

// NewEventLog returns a log that sends to the manager's ttrpc socket at address. Without an
// address there is nobody to tell, and events are dropped (CRI-O: managers.md).
func NewEventLog(address, namespace string, log *slog.Logger) *EventLog {
	return newEventLog(address, namespace, log, returnTime)
}

func newEventLog(address, namespace string, log *slog.Logger, hold time.Duration) *EventLog {
	l := &EventLog{
		address: strings.TrimPrefix(address, "unix://"), namespace: namespace, log: log, hold: hold,
		wake: make(chan struct{}, 1), visits: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}),
		done: make(chan struct{}),
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
func (l *EventLog) Append(event wire.Message) {
	if l.address == "" {
		return
	}
	envelope := &api.Envelope{
		Timestamp: api.Time(time.Now()),
		Namespace: l.namespace,
		Topic:     topics[event.MessageName()],
		Event:     pack(event),
	}
	l.enqueue(envelope)
	l.poke()
}

func (l *EventLog) enqueue(e *api.Envelope) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, e)
	l.change()
	if len(l.queue) >= max(l.crowd, crowd) {
		l.queue = compact(l.queue)
		l.crowd = 2 * len(l.queue)
	}
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
	l.rush()
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

// rush tells the sender that the shim ends.
func (l *EventLog) rush() {
	select {
	case l.hurry <- struct{}{}:
	default: // it has been told
	}
}

// head returns the oldest event, or nil; last tells that no other will come.
func (l *EventLog) head() (e *api.Envelope, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil, l.closing
	}
	return l.queue[0], false
}

// drop takes the head from the queue, since the manager has taken or refused it.
func (l *EventLog) drop(refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(taken{l.queue[0], time.Now(), refused})
	l.queue[0] = nil
	l.queue = l.queue[1:]
	if len(l.queue) == 0 {
		l.queue, l.crowd = nil, 0 // let go of the array
	}
	l.change()
}

// keep remembers an event that has been taken, and forgets the oldest of many. The caller holds mu.
func (l *EventLog) keep(e taken) {
	if len(l.taken) < maxTaken {
		l.taken = append(l.taken, e)
		return
	}
	l.taken[l.oldest] = e
	l.oldest = (l.oldest + 1) % maxTaken
}

// gather moves the events that are kept to memory of their own. Each was made at another time, and keeps a
// piece of memory among much that is garbage by now.
func (l *EventLog) gather() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.taken {
		e := *l.taken[i].Envelope
		at, event := *e.Timestamp, *e.Event
		event.Value = bytes.Clone(event.Value)
		e.Timestamp, e.Event = &at, &event
		l.taken[i].Envelope = &e
	}
}

// send is the one sender.
func (l *EventLog) send() {
	defer close(l.done)
	to := sink{address: l.address, namespace: l.namespace}
	defer to.close()
	pause := firstPause
	for more := true; more; {
		e, last := l.head()
		switch {
		case last:
			return
		case e == nil && !(to.away && time.Now().Before(l.seek)):
			more = l.idle(&to)
		default:
			err := l.attempt(&to, e)
			if err == nil {
				pause, l.since, l.warned = firstPause, time.Time{}, false
				continue
			}
			l.log.Debug("manager not reached", "topic", e.GetTopic(), "err", err)
			l.complain(time.Now())
			if l.hurried {
				pause = firstPause
			}
			more = l.pause(pause)
			pause = min(2*pause, longestPause)
		}
	}
}

// Visited says that somebody has connected to the shim. It may be a manager that has returned: they
// look for their shims before they serve events, so that the sender, which does nothing while the
// manager is away and no event waits, looks for it for some time.
func (l *EventLog) Visited() {
	select {
	case l.visits <- struct{}{}:
	default:
	}
}

// complain says once that events wait for so long that somebody should know.
func (l *EventLog) complain(now time.Time) {
	if l.since.IsZero() {
		l.since = now
	}
	if n := l.Backlog(); n > 0 && !l.warned && now.Sub(l.since) >= longOutage {
		l.warned = true
		l.log.Warn("events wait for the manager", "events", n, "since", l.since)
	}
}

// attempt tries once to hand over e. Without an event it only finds out whether the manager is
// there again.
func (l *EventLog) attempt(to *sink, e *api.Envelope) error {
	returned, err := to.connect()
	if err != nil {
		return err
	}
	if returned {
		l.pause(l.hold)
	}
	if e == nil {
		return nil
	}
	err = to.forward(e)
	if status.Code(err) == codes.InvalidArgument {
		l.log.Error("event refused by the manager", "topic", e.GetTopic(), "err", err)
		l.drop(true)
		return nil
	}
	if err == nil {
		l.drop(false)
	}
	return err
}

// idle waits for an event, for the loss of the connection, or for somebody who may be the manager, and
// returns false when the time of Close is up.
func (l *EventLog) idle(to *sink) bool {
	select {
	case <-l.wake:
		return true
	case <-to.lost:
		to.lose()
		return true
	case <-l.visits:
		l.seek = time.Now().Add(seekTime)
		return true
	case <-l.quit:
		return false
	}
}

// pause waits for d, or until the shim ends. It returns false when the time of Close is up.
func (l *EventLog) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.hurry:
		l.hurried = true
		return true
	case <-l.quit:
		return false
	}
}

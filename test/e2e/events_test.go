package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	taskevents "github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// events collects the events about the tasks of one namespace for as long as a containerd lives.
type events struct {
	earlier *events // of the containerd before this one; what happened in between is not known
	cancel  context.CancelFunc
	ended   chan struct{}

	mu   sync.Mutex // guards what follows
	list []client.Event
}

// markTopic is the topic of the events by which follow knows that it is subscribed.
const markTopic = "/e2e/mark"

// follow subscribes to containerd's events. It returns when the subscription stands, which it
// knows from an event of its own that came back. earlier are the events seen so far, if any.
func follow(t *testing.T, conn *grpc.ClientConn, namespace string, earlier *events) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(inNamespace(context.Background(), namespace))
	e := &events{earlier: earlier, cancel: cancel, ended: make(chan struct{})}
	service := eventsapi.NewEventsClient(conn)
	stream, err := service.Subscribe(ctx, &eventsapi.SubscribeRequest{
		Filters: []string{"namespace==" + namespace},
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	marked := make(chan struct{})
	go e.receive(stream, marked) // ends with the stream: by stop, or with containerd

	mark, err := anypb.New(&emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		request := &eventsapi.PublishRequest{Topic: markTopic, Event: mark}
		if _, err := service.Publish(ctx, request); err != nil {
			return err
		}
		select {
		case <-marked:
			return nil
		case <-time.After(100 * time.Millisecond):
			return errors.New("no event of our own has come back")
		}
	})
	return e
}

// inNamespace returns a context for calls to containerd's API.
func inNamespace(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

func (e *events) receive(stream eventsapi.Events_SubscribeClient, marked chan struct{}) {
	defer close(e.ended)
	first := true
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return
		}
		if envelope.Topic == markTopic {
			if first {
				close(marked)
				first = false
			}
			continue
		}
		if !strings.HasPrefix(envelope.Topic, "/tasks/") {
			continue
		}
		message, err := envelope.Event.UnmarshalNew()
		if err != nil {
			message = envelope.Event // Not of a type we know: the checks will say so.
		}
		e.mu.Lock()
		e.list = append(e.list, client.Event{
			At:        time.Now(),
			Sent:      client.Time(envelope.Timestamp),
			Namespace: envelope.Namespace,
			Topic:     envelope.Topic,
			Message:   message,
		})
		e.mu.Unlock()
	}
}

// stop ends the subscription. What was collected stays.
func (e *events) stop() {
	e.cancel()
	<-e.ended
}

// all returns the events so far in the order in which they came, those of earlier containerds too.
func (e *events) all() []client.Event {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(e.earlier.all(), e.list...)
}

// topics returns the topics of a container's events so far.
func (e *events) topics(id string) []string {
	var found []string
	for _, ev := range e.all() {
		if ev.Task() == id {
			found = append(found, ev.Topic)
		}
	}
	return found
}

// verify checks the order of the events but for those of some containers; every process that was
// started must have ended by now. It is called after stop.
func (e *events) verify(t *testing.T, but ...string) {
	t.Helper()
	ours := func(list []client.Event) []client.Event {
		return slices.DeleteFunc(slices.Clone(list), func(ev client.Event) bool { return slices.Contains(but, ev.Task()) })
	}
	var options []order.Option
	if e.earlier != nil {
		options = append(options, order.BeginsInMiddle)
	}
	order.Verify(t, ours(e.list), options...)
	for e = e.earlier; e != nil; e = e.earlier {
		options := []order.Option{order.EndsInMiddle}
		if e.earlier != nil {
			options = append(options, order.BeginsInMiddle)
		}
		order.Verify(t, ours(e.list), options...)
	}
}

// exit waits for the exit event of a process; exec is the container's id for its init process.
func (e *events) exit(t *testing.T, id, exec string) *taskevents.TaskExit {
	t.Helper()
	var exit *taskevents.TaskExit
	eventually(t, func() error {
		for _, ev := range e.all() {
			m, ok := ev.Message.(*taskevents.TaskExit)
			if ok && m.ContainerID == id && m.ID == exec {
				exit = m
				return nil
			}
		}
		return fmt.Errorf("no exit event of %s in %s; its events: %v", exec, id, e.topics(id))
	})
	return exit
}

// deleted waits for the event that a container's task has been deleted.
func (e *events) deleted(t *testing.T, id string) *taskevents.TaskDelete {
	t.Helper()
	var deletion *taskevents.TaskDelete
	eventually(t, func() error {
		for _, ev := range e.all() {
			m, ok := ev.Message.(*taskevents.TaskDelete)
			if ok && m.ContainerID == id && m.ID == "" {
				deletion = m
				return nil
			}
		}
		return fmt.Errorf("no delete event of %s; its events: %v", id, e.topics(id))
	})
	return deletion
}

// await waits until a container's events so far are the given topics.
func (e *events) await(t *testing.T, id string, topics ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := e.topics(id); !slices.Equal(got, topics) {
			return fmt.Errorf("events of %s: got %v, want %v", id, got, topics)
		}
		return nil
	})
}

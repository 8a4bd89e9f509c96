package shim

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/api"
)

const (
	namespaceKey  = "containerd-namespace-ttrpc" // metadata of every call (contract 3.1)
	eventsService = "containerd.services.events.ttrpc.v1.Events"
	forwardLimit  = 5 * time.Second // of one attempt, as containerd's own shim has it
)

// sink is the connection to the manager's events service. It belongs to the sender of an EventLog.
type sink struct {
	address, namespace string

	client *ttrpc.Client // nil when not connected
	lost   chan struct{} // closed when the connection of client has ended; nil without one
	away   bool          // the manager was there once and is not, or could not be reached
}

// connect makes a connection unless there is one. returned tells that the manager had been away.
func (s *sink) connect() (returned bool, err error) {
	select {
	case <-s.lost: // never, if nil
		s.lose()
	default:
	}
	if s.client != nil {
		return false, nil
	}
	conn, err := dial(s.address)
	if err != nil {
		s.away = true
		return false, err
	}
	lost := make(chan struct{})
	s.lost = lost
	s.client = ttrpc.NewClient(conn, ttrpc.WithOnClose(func() { close(lost) }))
	returned, s.away = s.away, false
	return returned, nil
}

// forward hands over e. After an error that the manager did not give itself the connection is
// closed.
func (s *sink) forward(e *api.Envelope) error {
	// Not by a context: a peer that does not read leaves the client stuck in write(2), where it does not look at
	// one; closing the connection frees it.
	client := s.client
	limit := time.AfterFunc(forwardLimit, func() { _ = client.Close() })
	ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{namespaceKey: []string{s.namespace}})
	err := client.Call(ctx, eventsService, "Forward", &api.ForwardRequest{Envelope: e}, new(api.Empty))
	if late := !limit.Stop(); late && err != nil {
		err = fmt.Errorf("no answer within %v: %w", forwardLimit, err)
	}
	if err != nil && !answered(err) {
		s.lose()
	}
	return err
}

// answered tells that the manager itself has said err.
func answered(err error) bool {
	_, ok := status.FromError(err)
	return ok && status.Code(err) != codes.DeadlineExceeded
}

// lose closes a connection that is of no use any more: the manager is away.
func (s *sink) lose() {
	s.close()
	s.away = true
}

func (s *sink) close() {
	if s.client != nil {
		_ = s.client.Close() // there is nothing to lose in it
	}
	s.client, s.lost = nil, nil
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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

	"holdfast/internal/client"
	"holdfast/test/leak"
)

func listen(t *testing.T) *client.Events {
	t.Helper()
	e, err := client.ListenEvents(filepath.Join(shortDir(t), "e"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// sender is the shim's side, as the ttrpc module makes it.
func sender(t *testing.T, e *client.Events) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", e.Address())
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

func forward(ctx context.Context, c *ttrpc.Client, m proto.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = eventsapi.NewTTRPCEventsClient(c).Forward(ctx, &eventsapi.ForwardRequest{
		Envelope: &types.Envelope{
			Timestamp: timestamppb.Now(),
			Namespace: "ns",
			Topic:     client.Topic(m),
			// A bare name, as shims send it.
			Event: &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: data},
		},
	})
	return err
}

func pids(events []client.Event) string {
	var b strings.Builder
	for _, ev := range events {
		fmt.Fprint(&b, ev.Pid(), " ")
	}
	return strings.TrimSpace(b.String())
}

func started(pid uint32) *events.TaskStart { return &events.TaskStart{ContainerID: "c", Pid: pid} }

func TestEventsAreRecordedInOrder(t *testing.T) {
	leak.Check(t)
	e, ctx := listen(t), deadline(t, 10*time.Second)
	c := sender(t, e)
	for pid := uint32(1); pid <= 5; pid++ {
		if err := forward(ctx, c, started(pid)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := pids(e.All()), "1 2 3 4 5"; got != want {
		t.Errorf("pids %s, want %s", got, want)
	}
	ev := e.All()[0]
	if ev.Namespace != "ns" || ev.Topic != "/tasks/start" || ev.Task() != "c" || ev.Exec() != "" ||
		ev.Sent.IsZero() || ev.At.IsZero() {
		t.Errorf("event %+v", ev)
	}
}

func TestEveryKindOfEventIsDecoded(t *testing.T) {
	exited := timestamppb.New(time.Unix(100, 0))
	rows := []struct {
		message proto.Message
		topic   string
		exec    string
		pid     uint32
		status  uint32
		exits   bool
	}{
		{&events.TaskCreate{ContainerID: "c", Pid: 1}, "/tasks/create", "", 1, 0, false},
		{&events.TaskStart{ContainerID: "c", Pid: 1}, "/tasks/start", "", 1, 0, false},
		{&events.TaskExit{ContainerID: "c", ID: "c", Pid: 1, ExitStatus: 3, ExitedAt: exited}, "/tasks/exit", "", 1, 3, true},
		{&events.TaskExit{ContainerID: "c", ID: "e", Pid: 1, ExitStatus: 3, ExitedAt: exited}, "/tasks/exit", "e", 1, 3, true},
		{&events.TaskDelete{ContainerID: "c", Pid: 1, ExitStatus: 3, ExitedAt: exited}, "/tasks/delete", "", 1, 3, true},
		{&events.TaskDelete{ContainerID: "c", ID: "e", Pid: 1, ExitStatus: 3, ExitedAt: exited}, "/tasks/delete", "e", 1, 3, true},
		{&events.TaskExecAdded{ContainerID: "c", ExecID: "e"}, "/tasks/exec-added", "e", 0, 0, false},
		{&events.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: 2}, "/tasks/exec-started", "e", 2, 0, false},
		{&events.TaskPaused{ContainerID: "c"}, "/tasks/paused", "", 0, 0, false},
		{&events.TaskResumed{ContainerID: "c"}, "/tasks/resumed", "", 0, 0, false},
		{&events.TaskCheckpointed{ContainerID: "c"}, "/tasks/checkpointed", "", 0, 0, false},
		{&events.TaskOOM{ContainerID: "c"}, "/tasks/oom", "", 0, 0, false},
	}
	e, ctx := listen(t), deadline(t, 10*time.Second)
	c := sender(t, e)
	for i, row := range rows {
		if err := forward(ctx, c, row.message); err != nil {
			t.Fatal(err)
		}
		ev := e.All()[i]
		status, at, exits := ev.Exit()
		if !proto.Equal(ev.Message, row.message) || ev.Topic != row.topic || ev.Task() != "c" ||
			ev.Exec() != row.exec || ev.Pid() != row.pid || status != row.status || exits != row.exits ||
			exits && !at.Equal(exited.AsTime()) {
			t.Errorf("%T: got %+v, exec %q, pid %d, exit %d %v %v", row.message, ev, ev.Exec(), ev.Pid(), status, at, exits)
		}
	}
}

func TestUndecodableEventIsKeptAsItIs(t *testing.T) {
	e, ctx := listen(t), deadline(t, 10*time.Second)
	c := sender(t, e)
	if err := forward(ctx, c, &events.TaskIO{Stdin: "x"}); err != nil {
		t.Fatal(err)
	}
	ev := e.All()[0]
	a, ok := ev.Message.(*anypb.Any)
	if !ok || a.TypeUrl != "containerd.events.TaskIO" || ev.Task() != "" || ev.Exec() != "" || ev.Pid() != 0 {
		t.Errorf("event %+v", ev)
	}
}

func TestOtherServicesAreUnimplemented(t *testing.T) {
	e, ctx := listen(t), deadline(t, 10*time.Second)
	err := sender(t, e).Call(ctx, "containerd.services.events.ttrpc.v1.Events", "Publish",
		&eventsapi.ForwardRequest{}, &anypb.Any{})
	if status.Code(err) != codes.Unimplemented || len(e.Arrivals()) != 0 {
		t.Errorf("error %v, events %v", err, e.Arrivals())
	}
}

func TestRefusedEventGetsAnError(t *testing.T) {
	e, ctx := listen(t), deadline(t, 10*time.Second)
	c := sender(t, e)
	e.Fault(client.Refused, 1)
	if err := forward(ctx, c, started(1)); status.Code(err) != codes.Unavailable {
		t.Errorf("error %v, want unavailable", err)
	}
	if err := forward(ctx, c, started(2)); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	if got := pids(e.All()); got != "2" {
		t.Errorf("accepted %s, want 2", got)
	}
	if got := pids(e.Arrivals()); got != "1 2" {
		t.Errorf("arrived %s, want 1 2", got)
	}
}

func TestStalledEventGetsNoAnswer(t *testing.T) {
	leak.Check(t)
	e, ctx := listen(t), deadline(t, 10*time.Second)
	c := sender(t, e)
	e.Fault(client.Stalled, -1)
	attempt, giveUp := context.WithCancel(ctx)
	answered := make(chan error, 1)
	go func() { answered <- forward(attempt, c, started(1)) }()
	if _, err := e.WaitArrival(ctx, func(ev client.Event) bool { return ev.Outcome == client.Stalled }); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answered:
		t.Errorf("answered: %v", err)
	default:
	}
	giveUp()
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	// The connection is still good.
	e.Fault(client.Accepted, 0)
	if err := forward(ctx, c, started(2)); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	if got := pids(e.All()); got != "2" {
		t.Errorf("accepted %s, want 2", got)
	}
}

func TestDroppedEventEndsTheConnection(t *testing.T) {
	e, ctx := listen(t), deadline(t, 10*time.Second)
	e.Fault(client.Dropped, 1)
	if err := forward(ctx, sender(t, e), started(1)); !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("error %v, want closed", err)
	}
	if err := forward(ctx, sender(t, e), started(1)); err != nil {
		t.Errorf("second attempt: %v", err)
	}
	if got := pids(e.All()); got != "1" {
		t.Errorf("accepted %s, want 1", got)
	}
	if got := pids(e.Arrivals()); got != "1 1" {
		t.Errorf("arrived %s, want 1 1", got)
	}
}

func TestServerGoesAwayAndComesBack(t *testing.T) {
	rows := []struct {
		name   string
		socket bool // left behind
		want   error
	}{
		{"after a crash", true, syscall.ECONNREFUSED},
		{"after a stop", false, syscall.ENOENT},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			leak.Check(t)
			e, ctx := listen(t), deadline(t, 10*time.Second)
			c := sender(t, e)
			if err := forward(ctx, c, started(1)); err != nil {
				t.Fatal(err)
			}
			e.Away(row.socket)
			if err := forward(ctx, c, started(2)); !errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("while away: error %v, want closed", err)
			}
			if conn, err := net.Dial("unix", e.Address()); !errors.Is(err, row.want) {
				t.Errorf("dial: %v, %v; want %v", conn, err, row.want)
			}
			if err := e.Back(); err != nil {
				t.Fatal(err)
			}
			if err := forward(ctx, sender(t, e), started(3)); err != nil {
				t.Error(err)
			}
			if got := pids(e.All()); got != "1 3" {
				t.Errorf("accepted %s, want 1 3", got)
			}
		})
	}
}

func TestBackTakesOverNothingThatIsNotItsOwn(t *testing.T) {
	e := listen(t)
	if _, err := client.ListenEvents(e.Address()); err == nil {
		t.Error("two servers on one path")
	}
	file := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ListenEvents(file); err == nil {
		t.Error("a file has been replaced")
	}
	e.Close()
	if err := e.Back(); err == nil {
		t.Error("serving again after Close")
	}
}

func TestWaitTellsWhatDidArrive(t *testing.T) {
	e := listen(t)
	if err := forward(deadline(t, 10*time.Second), sender(t, e), started(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := e.Wait(ctx, client.Exits("c", ""))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "/tasks/start c") {
		t.Errorf("error %v", err)
	}
}

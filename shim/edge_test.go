package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/api"
)

// through sends the outcome of a handler through the edge.
func through(answer any, err error) (any, error) {
	return handle(func() (any, error) { return answer, err })
}

func handle(handler func() (any, error)) (any, error) {
	return edge(slog.New(slog.DiscardHandler), nil, newTidierWith(func() {}, func() {}, func() bool { return true }), newRequests())(context.Background(), nil,
		&ttrpc.UnaryServerInfo{FullMethod: "/containerd.task.v3.Task/State"},
		func(context.Context, func(any) error) (any, error) { return handler() })
}

func TestEdgeGivesEachKindItsCode(t *testing.T) {
	for kind, want := range map[error]codes.Code{
		errdefs.ErrNotFound:           codes.NotFound,
		errdefs.ErrAlreadyExists:      codes.AlreadyExists,
		errdefs.ErrFailedPrecondition: codes.FailedPrecondition,
		errdefs.ErrInvalidArgument:    codes.InvalidArgument,
		errdefs.ErrUnavailable:        codes.Unavailable,
		context.Canceled:              codes.Canceled,
		context.DeadlineExceeded:      codes.DeadlineExceeded,
		errors.New("anything"):        codes.Unknown,
		fs.ErrNotExist:                codes.Unknown, // never NotFound: that means "no such task"
	} {
		_, err := through(nil, fmt.Errorf("do it: %w", kind))
		if got := status.Code(err); got != want {
			t.Errorf("%v: code %s, want %s", kind, got, want)
		}
		if text := status.Convert(err).Message(); text != "do it: "+kind.Error() {
			t.Errorf("%v: message %q", kind, text)
		}
	}
}

func TestEdgeMakesTextsFitForTheWire(t *testing.T) {
	for _, text := range []string{"bad \xff\xfe", strings.Repeat("é", 1<<20), "x: ttrpc: closed"} {
		_, err := through(nil, errors.New(text))
		got := status.Convert(err).Message()
		if !utf8.ValidString(got) || len(got) > maxErrorText+10 || strings.HasSuffix(got, "ttrpc: closed") {
			t.Errorf("message %q of %d bytes", got[:min(len(got), 40)], len(got))
		}
	}
}

func TestEdgeCatchesPanics(t *testing.T) {
	answer, err := handle(func() (any, error) { panic("boom") })
	if answer != nil || status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "boom") {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestEdgeRefusesAnswersThatTheWireCannotCarry(t *testing.T) {
	if _, err := through(&api.StateResponse{Stdin: strings.Repeat("x", 5<<20)}, nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("large answer: %v", err)
	}
	if _, err := through(nil, nil); status.Code(err) != codes.Internal {
		t.Errorf("no answer: %v", err)
	}
	if _, err := through(&api.StateResponse{}, nil); err != nil {
		t.Errorf("small answer: %v", err)
	}
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/facts"
	"holdfast/internal/recorder"
	"holdfast/internal/wire"
)

const (
	// maxErrorText bounds an error text. An answer that cannot be sent, because it is larger than
	// the 4 MiB of a frame or holds invalid UTF-8, closes the connection, which the manager takes
	// for the death of the shim (contract T67).
	maxErrorText = 16 << 10
	maxAnswer    = 4<<20 - 64<<10
	// slowCall is when a request takes too long. Hooks may; but somebody waits for it.
	slowCall = 10 * time.Second
)

// edgeCodes maps kinds of errors to codes, the first match counting.
var edgeCodes = []struct {
	kind error
	code codes.Code
}{
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrAlreadyExists, codes.AlreadyExists},
	{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{errdefs.ErrNotImplemented, codes.Unimplemented},
	{errdefs.ErrUnavailable, codes.Unavailable},
	{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
	{errdefs.ErrPermissionDenied, codes.PermissionDenied},
	{errdefs.ErrAborted, codes.Aborted},
	{errdefs.ErrInternal, codes.Internal},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// edge returns the interceptor that all calls pass. It is the only place where errors get codes,
// and where a panic of a handler is caught: a bug in Stats must not end a pod.
func edge(log *slog.Logger, steps *recorder.Recorder, tidier *tidier, requests *requests) ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (answer any, err error) {
		began := time.Now()
		slow := watch(log, info.FullMethod, steps)
		request := requests.begin(info.FullMethod, began)
		defer func() {
			requests.end(request)
			slow.Stop()
			if cause := recover(); cause != nil {
				log.Error("panic", "op", info.FullMethod, "err", fmt.Sprint(cause), "stack", string(debug.Stack()),
					"steps", steps.String())
				answer, err = nil, status.Error(codes.Internal, fmt.Sprintf("cannot answer %s: the shim has a bug (%v); see its log and report it", info.FullMethod, cause))
			}
			record(log, info.FullMethod, time.Since(began), err)
			tidier.later()
		}()
		answer, err = method(ctx, func(message any) error {
			err := unmarshal(message)
			requests.name(request, message)
			return err
		})
		if err == nil {
			err = checkSize(answer)
		}
		if err != nil {
			return nil, encodeError(err)
		}
		return answer, nil
	}
}

// opOf returns the call's name in "/service/call".
func opOf(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }

// patient tells whether a call is answered when something happens: the process ends, or an event comes.
func patient(op string) bool { return op == "Wait" || op == facts.MethodEvents }

// watch says so, once, if a request takes too long, and what was done last.
func watch(log *slog.Logger, method string, steps *recorder.Recorder) *time.Timer {
	limit := slowCall
	if patient(opOf(method)) {
		limit = math.MaxInt64
	}
	return time.AfterFunc(limit, func() {
		log.Warn("request takes long", "op", opOf(method), "so far", limit, "steps", steps.String())
	})
}

func record(log *slog.Logger, method string, took time.Duration, err error) {
	op := opOf(method)
	level := slog.LevelDebug
	if took > slowCall && !patient(op) {
		level = slog.LevelWarn
	}
	if !log.Enabled(context.Background(), level) {
		return // before what is to be said is made ready
	}
	log.Log(context.Background(), level, "request", "op", op, "took", took, "err", err)
}

func checkSize(answer any) error {
	m, ok := answer.(wire.Message)
	if !ok {
		return fmt.Errorf("answer is a %T: %w", answer, errdefs.ErrInternal)
	}
	if n := len(wire.Marshal(m)); n > maxAnswer {
		return fmt.Errorf("cannot answer: %d bytes are more than ttrpc carries; ask for less: %w", n, errdefs.ErrResourceExhausted)
	}
	return nil
}

// encodeError gives err a code and a text that can be sent.
func encodeError(err error) error {
	code, text := codes.Unknown, err.Error()
	if s, ok := status.FromError(err); ok {
		code, text = s.Code(), s.Message() // of ttrpc itself: it could not decode the request
	}
	for _, e := range edgeCodes {
		if errors.Is(err, e.kind) {
			code = e.code
			break
		}
	}
	return status.Error(code, cleanMessage(text))
}

// cleanMessage makes text fit for the wire. CRI takes a message that ends in "ttrpc: closed" for
// the end of the connection (contract 3.1).
func cleanMessage(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + " …"
	}
	if strings.HasSuffix(text, ttrpc.ErrClosed.Error()) {
		text += "."
	}
	return text
}

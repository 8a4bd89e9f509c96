package client

import (
	"context"
	"fmt"
	"net"
	"strings"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	socketScheme = "unix://"

	// namespaceKey is the metadata key under which a manager sends its namespace with each call.
	namespaceKey = "containerd-namespace-ttrpc"

	serviceV2 = "containerd.task.v2.Task"
	serviceV3 = "containerd.task.v3.Task"

	// DefaultNamespace is sent unless Shim.Namespace is set.
	DefaultNamespace = "default"
)

// Shim is a connection to a running shim. Its methods are those of the task service. A call that
// the shim refuses returns an *Error. Safe for concurrent use; fields may be changed before the
// first call.
type Shim struct {
	task.TTRPCTaskService

	// Namespace goes with every call.
	Namespace string

	// Version is that of the service which the methods call: 3, or 2 for shims that serve nothing
	// newer. The messages of both are the same on the wire (contract section 1.5).
	Version int

	client *ttrpc.Client
	v2     taskv2.TTRPCTaskService
	done   chan struct{}
}

// Dial connects to the shim at address, "unix:///path" or a path. The caller closes the Shim.
// ctx bounds the connecting only.
func Dial(ctx context.Context, address string) (*Shim, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", strings.TrimPrefix(address, socketScheme))
	if err != nil {
		return nil, fmt.Errorf("dial shim: %w", err)
	}
	s := &Shim{Namespace: DefaultNamespace, Version: 3, done: make(chan struct{})}
	s.client = ttrpc.NewClient(conn,
		ttrpc.WithOnClose(func() { close(s.done) }),
		ttrpc.WithUnaryClientInterceptor(s.call))
	s.TTRPCTaskService = task.NewTTRPCTaskClient(s.client)
	s.v2 = taskv2.NewTTRPCTaskClient(s.client)
	return s, nil
}

// V2 returns the task service in version 2, on the same connection.
func (s *Shim) V2() taskv2.TTRPCTaskService { return s.v2 }

// Done is closed when the connection has ended, by either side.
func (s *Shim) Done() <-chan struct{} { return s.done }

// Close ends the connection and waits until its goroutine has ended. The shim lives on.
func (s *Shim) Close() {
	s.client.Close()
	<-s.done
}

// call addresses a request and adds the namespace, and turns an answer that is a refusal into an
// *Error.
func (s *Shim) call(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response,
	info *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker,
) error {
	if _, ok := ttrpc.GetMetadataValue(ctx, namespaceKey); !ok {
		req.Metadata = append(req.Metadata, &ttrpc.KeyValue{Key: namespaceKey, Value: s.Namespace})
	}
	if s.Version == 2 && req.Service == serviceV3 {
		req.Service = serviceV2
	}
	if err := invoke(ctx, req, resp); err != nil {
		return fmt.Errorf("call %s: %w", info.FullMethod, err)
	}
	if st := status.FromProto(resp.GetStatus()); st.Code() != codes.OK {
		return &Error{Method: info.FullMethod, status: st}
	}
	return nil
}

// Error is a call that the shim answered with an error. errors.Is tells its kind (errdefs) and
// status.Code its code.
type Error struct {
	Method string // such as /containerd.task.v3.Task/Kill
	status *status.Status
}

// Error returns the shim's message, verbatim: that is what clients of a manager compare.
func (e *Error) Error() string { return e.status.Message() }

// GRPCStatus returns the status as it came off the wire.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Unwrap returns the kind of the error.
func (e *Error) Unwrap() error {
	if kind, ok := kinds[e.status.Code()]; ok {
		return kind
	}
	return errdefs.ErrUnknown
}

// kinds maps codes to errors as containerd does (contract 3.1). Read only.
var kinds = map[codes.Code]error{
	codes.Canceled:           context.Canceled,
	codes.InvalidArgument:    errdefs.ErrInvalidArgument,
	codes.DeadlineExceeded:   context.DeadlineExceeded,
	codes.NotFound:           errdefs.ErrNotFound,
	codes.AlreadyExists:      errdefs.ErrAlreadyExists,
	codes.PermissionDenied:   errdefs.ErrPermissionDenied,
	codes.ResourceExhausted:  errdefs.ErrResourceExhausted,
	codes.FailedPrecondition: errdefs.ErrFailedPrecondition,
	codes.Aborted:            errdefs.ErrAborted,
	codes.OutOfRange:         errdefs.ErrOutOfRange,
	codes.Unimplemented:      errdefs.ErrNotImplemented,
	codes.Internal:           errdefs.ErrInternal,
	codes.Unavailable:        errdefs.ErrUnavailable,
	codes.DataLoss:           errdefs.ErrDataLoss,
	codes.Unauthenticated:    errdefs.ErrUnauthenticated,
}

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"holdfast/internal/api"
)

// The versions of the task API, of which a daemon of ours serves both (contract 1.5).
const (
	newestVersion = 3
	olderVersion  = 2
)

// joinKey is metadata of a Connect by which a start tells a daemon of ours that the container is
// about to be created there.
const joinKey = "holdfast-join"

// probeLimit bounds how long a living daemon may take to say what it speaks.
const probeLimit = 2 * time.Second

// errGone says that the daemon has ended, or is about to.
var errGone = errors.New("the daemon is gone")

// probe returns the newest version of the task API that the daemon at path speaks, which may be a
// daemon of containerd's, from before our shim was put in its place. It tells the daemon that the
// container id is coming. The error is errGone if there is no daemon any more.
//
// A daemon that lives but does not answer is taken for the newest version: managers fall back from
// it when the daemon says that it does not know it, but never the other way.
func probe(ctx context.Context, path, id string) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{joinKey: []string{id}})
	conn, err := dial(path)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
		return 0, fmt.Errorf("connect to %s: %w", path, errGone)
	}
	if err != nil {
		return newestVersion, nil //nolint:nilerr // it listens, with a full queue
	}
	client := ttrpc.NewClient(conn)
	defer client.Close() //nolint:errcheck // nothing was asked for after the answer
	version := int32(newestVersion)
	err = connect(ctx, client, version, id)
	if status.Code(err) == codes.Unimplemented {
		version = olderVersion
		err = connect(ctx, client, version, id)
	}
	switch {
	case isClosed(err), status.Code(err) == codes.Unavailable:
		return 0, fmt.Errorf("ask %s: %w", path, errGone)
	case status.Code(err) == codes.Unimplemented:
		return 0, fmt.Errorf("cannot join the daemon at %s: it serves no task API; who listens there?", path)
	}
	// Any other error is an answer too.
	return version, nil
}

// connect asks in a version of the task API. The messages are the same in both, so those of one do; the
// other's would cost each shim the memory of their descriptions.
func connect(ctx context.Context, client *ttrpc.Client, version int32, id string) error {
	return client.Call(ctx, taskService(version), "Connect", &api.ConnectRequest{ID: id}, new(api.ConnectResponse))
}

// taskService is the name of the task API in a version.
func taskService(version int32) string { return fmt.Sprintf("containerd.task.v%d.Task", version) }

// isClosed tells whether err means that the other side has closed the connection.
func isClosed(err error) bool {
	return errors.Is(err, ttrpc.ErrClosed) || errors.Is(err, io.EOF) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

package runc

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// Kinds of failure that callers treat in ways of their own, told by the runtime's words
// (wording.go); test with errors.Is. To pause a container that is paused is ErrNotRunning with
// runc from 1.1 to 1.5, and no error with crun.
var (
	ErrNotFound   = errors.New("container does not exist")
	ErrNotRunning = errors.New("container is not running")
	ErrExists     = errors.New("container exists already")
	ErrPaused     = errors.New("container is paused")
	ErrNotPaused  = errors.New("container is not paused")
	ErrHung       = errors.New("runtime command did not end in time")
)

// Error is a failed runtime command.
//
// It matches its Kind, and what containerd shall take it for: of package errdefs ErrNotFound,
// ErrAlreadyExists or ErrFailedPrecondition, or context.DeadlineExceeded. It never matches an
// errno or fs.ErrNotExist, which ttrpc would take for "no such task".
type Error struct {
	Op      string        // the verb
	ID      string        // the container
	Code    int           // exit status, 128 + signal, 0 if what it did was of no use, or -1 if it did not start or end
	Message string        // the runtime's own last error line, or what is known instead; valid UTF-8, at most 16 KiB
	Kind    error         // one of the kinds above, or nil
	Took    time.Duration // how long the command ran

	// leftover tells that the runtime may have left a container: it ended well, or was killed
	// before it could clean up. One that ended with an error has cleaned up, or has refused
	// because the container is somebody else's.
	leftover bool
}

// Error returns the text that clients see and match: dockerd, the kubelet and their users know
// the prefixes, dockerd derives exit codes 126 and 127 from the runtime's words, and containerd's
// test suite pins those of Kill (contract 3.7, 4.4).
func (e *Error) Error() string {
	switch {
	case e.Op == "kill" && e.Kind == ErrNotRunning: //nolint:errorlint // Kind is never wrapped
		return "process already finished: not found"
	case e.Op == "kill" && e.Kind == ErrNotFound: //nolint:errorlint // see above
		return "no such container: not found"
	case e.Op == "kill":
		return "unknown error after kill: " + e.Message
	case e.Op == "delete":
		return "failed to delete task: " + e.Message
	}
	return "OCI runtime " + e.Op + " failed: " + e.Message
}

// Unfinished tells that the runtime had no time to clean up: it may have left what it had told nobody
// of yet, such as control groups.
func (e *Error) Unfinished() bool { return e.leftover }

// Unwrap returns the kinds that e matches.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return nil
	}
	return []error{e.Kind, class(e.Op, e.Kind)}
}

// class returns what a kind is to containerd.
func class(op string, kind error) error {
	switch kind { //nolint:errorlint // Kind is never wrapped
	case ErrNotFound:
		return errdefs.ErrNotFound
	case ErrExists:
		return errdefs.ErrAlreadyExists
	case ErrHung:
		return context.DeadlineExceeded
	case ErrNotRunning:
		if op == "kill" {
			return errdefs.ErrNotFound
		}
	}
	return errdefs.ErrFailedPrecondition
}

// failure is an Error that is not the runtime's own. Of cause only the text is kept.
func (r *Runtime) failure(op string, cause error) *Error {
	return &Error{Op: op, ID: r.ID, Code: -1, Message: clean(cause.Error())}
}

// clean makes text fit for an error that goes over the wire: valid UTF-8, without which the whole
// connection is dropped (contract T67), and not too long; what is cut is cut from the middle,
// since a runtime's chain of errors says what failed at its beginning and why at its end.
func clean(text string) string {
	text = strings.TrimSpace(strings.ToValidUTF8(text, string(utf8.RuneError)))
	if len(text) <= capLimit {
		return text
	}
	const gap = " […] "
	half := (capLimit - len(gap)) / 2
	return strings.ToValidUTF8(text[:half]+gap+text[len(text)-half:], "")
}

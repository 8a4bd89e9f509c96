package cgroup

import (
	"errors"
	"syscall"

	"github.com/containerd/errdefs"
)

// ErrGone says that there is no such group, or no longer. It is an errdefs.ErrNotFound.
var ErrGone error = kind{"cgroup does not exist", errdefs.ErrNotFound}

// ErrShared says that the container has no group of its own, so that what was asked for would
// have hit processes that are none of its. It is an errdefs.ErrFailedPrecondition.
var ErrShared error = kind{"container has no cgroup of its own", errdefs.ErrFailedPrecondition}

// kind is an error value with a text of its own that is also one of the errdefs.
type kind struct {
	text string
	is   error
}

func (k kind) Error() string { return k.text }
func (k kind) Unwrap() error { return k.is }

// vanished tells whether err is how cgroupfs says that a group is not there: ENOENT when it is
// looked up, ENODEV when one of its files is open already.
func vanished(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODEV)
}

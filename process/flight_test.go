package process

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"

	"holdfast/internal/reaper"
)

// A panic in a deletion ended the shim with all its containers.
func TestPanicOfSharedWorkIsAnError(t *testing.T) {
	var f flight
	_, err := f.join(t.Context(), func() (reaper.Exit, error) { panic("bug") })
	if !errors.Is(err, errdefs.ErrInternal) {
		t.Errorf("error %v", err)
	}
	exit, err := f.join(t.Context(), func() (reaper.Exit, error) { return reaper.Exit{Status: 1}, nil })
	if err != nil || exit.Status != 1 {
		t.Errorf("the next try: %v, %v", exit, err)
	}
}

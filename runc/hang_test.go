package runc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process in a frozen v1 cgroup heeds SIGKILL only when it is thawed, as one in uninterruptible
// sleep does when it wakes. Nobody may wait for it until then.
func TestCommandThatCannotBeKilledIsGivenUp(t *testing.T) {
	requireRoot(t)
	if testing.Short() {
		t.Skip("waits for killWait")
	}
	cgroup, err := os.MkdirTemp("/sys/fs/cgroup/freezer", "holdfast-runc-test-")
	if err != nil {
		t.Skipf("needs the freezer of cgroup v1: %v", err)
	}
	state := filepath.Join(cgroup, "freezer.state")
	r := fake(t, "{}")
	t.Cleanup(func() { // before that of fake, which waits for all processes to end
		if err := os.WriteFile(state, []byte("THAWED"), 0); err != nil {
			t.Error(err)
		}
		poll(t, "the cgroup to be empty", func() bool { return unix.Rmdir(cgroup) == nil })
	})
	script := filepath.Join(r.Bundle, "frozen")
	text := "#!/bin/sh\necho $$ > " + cgroup + "/cgroup.procs\necho FROZEN > " + state + "\nexec sleep 1000\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	frozen := likeness(r)
	frozen.Binary = script
	err = frozen.Pause(until(t, "frozen", func() bool {
		content, err := os.ReadFile(state)
		return err == nil && string(content) == "FROZEN\n"
	}))
	if !errors.Is(err, ErrHung) || !strings.Contains(err.Error(), "does not die of SIGKILL") || !strings.Contains(err.Error(), "in state D") {
		t.Errorf("error %v", err)
	}
}

// Package plant is what somebody may have put in the place of a file of ours.
package plant

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds make it, under path; elsewhere is a file of somebody else.
var Kinds = map[string]func(path, elsewhere string) error{
	"link":          func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
	"dangling link": func(path, elsewhere string) error { return os.Symlink(elsewhere+".new", path) },
	"device":        func(path, _ string) error { return os.Symlink("/dev/zero", path) },
	"FIFO":          func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
	"socket":        func(path, _ string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
}

// Soon fails the test if do takes long: it would wait for the other end of a FIFO.
func Soon(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { // ends with do
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}

package shim

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestDaemonWaitsForItsRelease has both ends of the pipe on which start says that it has answered.
func TestDaemonWaitsForItsRelease(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(release *os.File) error
		want error
	}{
		{"start answers", func(f *os.File) error { _, err := f.Write([]byte{0}); return err }, nil},
		{"start dies", (*os.File).Close, errAbandoned},
	} {
		t.Run(c.name, func(t *testing.T) {
			held, release, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- awaitRelease(held) }()
			if err := c.end(release); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			release.Close()
		})
	}
}

// TestClosingTheListenerLeavesTheSocket has the daemon's order of going down: first the file.
func TestClosingTheListenerLeavesTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p := DaemonParams{SocketPath: path}
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := p.Listener.Close(); err != nil || !exists(path) {
		t.Errorf("closed with %v, the file is there: %v", err, exists(path))
	}
	if err := p.RemoveSocket(); err != nil || exists(path) {
		t.Errorf("removed with %v, the file is there: %v", err, exists(path))
	}
}

package stdio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/containerd/fifo"
	"golang.org/x/sys/unix"
)

// client opens a FIFO as containerd and its clients do.
func client(t *testing.T, path string, flags int) io.ReadWriteCloser {
	t.Helper()
	f, err := fifo.OpenFifo(context.Background(), path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// reading collects what a client reads until the end of the stream.
type reading struct {
	done chan struct{}
	data []byte
	err  error
}

// read begins to read path; slow has it take its time.
func read(t *testing.T, path string, slow bool) *reading {
	t.Helper()
	f := client(t, path, unix.O_RDONLY)
	r := &reading{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer f.Close()
		if !slow {
			r.data, r.err = io.ReadAll(f)
			return
		}
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		buf := make([]byte, 5000)
		for {
			n, err := f.Read(buf)
			r.data = append(r.data, buf[:n]...)
			if err != nil {
				if err != io.EOF {
					r.err = err
				}
				return
			}
			<-tick.C
		}
	}()
	return r
}

func (r *reading) all(t *testing.T) []byte {
	t.Helper()
	within(t, 60*time.Second, "end of the client's stream", r.done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.data
}

// numbers is what `seq n` writes.
func numbers(n int) []byte {
	var b bytes.Buffer
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.Bytes()
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Fatalf("got %d bytes, want %d; they differ from byte %d on", len(got), len(want), i)
}

// data makes a file of n bytes that do not repeat.
func data(t *testing.T, n int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256(nil); len(content) < n; sum = sha256.Sum256(sum[:]) {
		content = append(content, sum[:]...)
	}
	content = content[:n]
	path = t.TempDir() + "/data"
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// byMode runs a test over both ways in which a FIFO may be connected.
func byMode(t *testing.T, test func(t *testing.T, direct bool)) {
	t.Helper()
	for _, direct := range []bool{false, true} {
		name := "relay"
		if direct {
			name = "direct"
		}
		t.Run(name, func(t *testing.T) {
			census(t)
			test(t, direct)
		})
	}
}

package direct

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
)

const (
	smallest, largest = 10, 27 // powers of two
	slowest           = 20     // the largest that is read slowly
)

// checker is a reader that compares what it is given with what it should be, and may be slow.
type checker struct {
	want []byte // what has not come yet
	bad  bool
	slow bool
}

func (c *checker) Write(p []byte) (int, error) {
	if len(p) > len(c.want) || !bytes.Equal(p, c.want[:len(p)]) {
		c.bad = true
		return len(p), nil
	}
	c.want = c.want[len(p):]
	if c.slow {
		time.Sleep(time.Duration(len(p)/1024) * 20 * time.Microsecond)
	}
	return len(p), nil
}

// modes are the ways in which output goes, and how many rounds each gets.
var modes = []struct {
	name     string
	scheme   string
	init     bool
	terminal bool
	rounds   int
}{
	{"init, FIFO", "fifo", true, false, 150},
	{"init, terminal", "fifo", true, true, 50},
	{"exec, FIFO", "fifo", false, false, 400},
	{"exec, terminal", "fifo", false, true, 200},
	{"exec, file", "file://", false, false, 100},
	{"exec, logger", "binary://", false, false, 100},
}

// TestOutputIsWholeAndEnds has processes write from 1 KiB to 128 MiB and exit at once. Every byte
// arrives, then the end of the stream.
func TestOutputIsWholeAndEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a thousand processes")
	}
	data := make([]byte, 1<<largest)
	random := rand.NewChaCha8([32]byte{})
	random.Read(data)
	for i := range data {
		data[i] = 'A' + data[i]%26 // nothing that a terminal would change
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/data", data, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			mount := specs.Mount{Destination: "/mnt", Source: dir, Type: "bind", Options: []string{"rbind", "ro"}}
			bundle := sleeper()
			bundle.Mounts = []specs.Mount{mount}
			l := newLab(t, labConfig{bundle: bundle})
			if !mode.init {
				l.run("c1", nil)
			}
			began := time.Now()
			for round := range mode.rounds {
				power := smallest + round
				if power > largest {
					power = smallest + rand.IntN(slowest-smallest)
				}
				size := 1 << power
				p := client.BundleConfig{
					Args:     []string{"/usr/bin/head", "-c", strconv.Itoa(size), "/mnt/data"},
					Terminal: mode.terminal, Mounts: bundle.Mounts,
				}
				l.whole(round, data[:size], p, mode.scheme, mode.init, power <= slowest && round%3 == 0)
				if t.Failed() {
					t.Fatalf("in round %d, of %d bytes", round, size)
				}
			}
			t.Logf("%d rounds took %v", mode.rounds, time.Since(began))
			if !mode.init {
				l.finish("c1")
			}
		})
	}
}

// whole runs a process that writes want, and checks what becomes of it.
func (l *lab) whole(round int, want []byte, p client.BundleConfig, scheme string, init, slow bool) {
	l.t.Helper()
	name := fmt.Sprint("p", round)
	check := &checker{want: want, slow: slow}
	var s sinks
	if scheme == "fifo" {
		s.IO = l.io(name, client.IOConfig{Terminal: p.Terminal, Stdout: check, Forget: true})
	} else {
		s = l.sinksOf(scheme, name, p.Terminal)
	}
	exec := ""
	if init {
		l.bundleAgain("c1", p)
		l.mustCreate("c1", s.IO)
	} else {
		exec = name
		l.mustExec("c1", exec, p, s.IO)
	}
	l.mustStart("c1", exec)
	if got := l.wait("c1", exec); got != 0 {
		l.t.Errorf("exit status %d", got)
	}
	if scheme == "fifo" {
		l.output(s.Out)
	}
	l.mustDelete("c1", exec)
	if scheme != "fifo" {
		if _, err := check.Write([]byte(s.out())); err != nil {
			l.t.Error(err)
		}
		if err := os.RemoveAll(filepath.Join(l.dir, "io", name)); err != nil {
			l.t.Error(err)
		}
	}
	if check.bad || len(check.want) > 0 {
		l.t.Errorf("the last %d bytes did not arrive as they were written", len(check.want))
	}
	s.Close()
}

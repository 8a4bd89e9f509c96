package direct

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// bareFIFOs makes FIFOs that nobody has open.
func (l *lab) bareFIFOs(name string, terminal bool) *client.IO {
	l.t.Helper()
	io := &client.IO{Terminal: terminal}
	dir := filepath.Join(l.dir, "bare", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	for file, path := range map[string]*string{"in": &io.Stdin, "out": &io.Stdout, "err": &io.Stderr} {
		*path = filepath.Join(dir, file)
		if err := unix.Mkfifo(*path, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	return io
}

// typed writes a line as a client that comes for it alone.
func (l *lab) typed(path, line string) {
	l.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, line); err != nil {
		l.t.Fatal(err)
	}
}

// heard reads a line as a client that comes for it alone; there is no other.
func (l *lab) heard(path string) string {
	l.t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(limit)); err != nil {
		l.t.Fatal(err)
	}
	var line []byte
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b[0]) {
		if _, err := f.Read(b); err != nil { // no more than that: the rest is for others
			l.t.Fatalf("after %q: %v", line, err)
		}
	}
	return strings.TrimRight(string(line), "\r\n")
}

// TestClientsComeAndGo: no end of input, no lost line, no SIGPIPE, however often they do; and the
// end of input when CloseIO says so, however often it does.
func TestClientsComeAndGo(t *testing.T) {
	for _, kind := range []string{"init", "exec"} {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, terminal %v", kind, terminal), func(t *testing.T) {
				script := "stty -echo 2>/dev/null; while read x; do echo got $x; echo also $x >&2; done; exit 4"
				p := sh(script)
				p.Terminal = terminal
				l := newLab(t, labConfig{bundle: sleeper()})
				exec, io := "", l.bareFIFOs("p", terminal)
				if kind == "init" {
					l.bundleAgain("c1", p)
					l.mustCreate("c1", io)
				} else {
					exec = "e1"
					l.run("c1", nil)
					l.mustExec("c1", exec, p, io)
				}
				l.mustStart("c1", exec)
				for i := range 50 {
					l.typed(io.Stdin, fmt.Sprint(i))
					want := []string{fmt.Sprint("got ", i)}
					if terminal {
						want = append(want, fmt.Sprint("also ", i))
					} else if got := l.heard(io.Stderr); got != fmt.Sprint("also ", i) {
						t.Fatalf("stderr says %q", got)
					}
					for _, w := range want {
						got := l.heard(io.Stdout)
						if terminal && i == 0 && got == "0" {
							got = l.heard(io.Stdout) // typed before the echo was off
						}
						if got != w {
							t.Fatalf("stdout says %q, want %q", got, w)
						}
					}
				}
				l.closeInput(exec, 8)
				if got := l.wait("c1", exec); got != 4 && !terminal {
					t.Errorf("exit status %d", got)
				}
				l.closeInput(exec, 2)
				l.mustDelete("c1", exec)
				if exec != "" {
					l.finish("c1")
				}
			})
		}
	}
}

// closeInput has several clients close the input at the same time.
func (l *lab) closeInput(exec string, clients int) {
	l.t.Helper()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			if _, err := l.CloseIO(within(l.t), &task.CloseIORequest{ID: "c1", ExecID: exec, Stdin: true}); err != nil {
				l.t.Error(err)
			}
		})
	}
	all.Wait()
}

// A client that never opens its ends delays nothing.
func TestClientThatNeverComes(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	for round, p := range []client.BundleConfig{sh("echo unheard; echo too >&2; exit 3"), sh("seq 5000; exit 3")} {
		for _, kind := range []string{"init", "exec"} {
			for _, terminal := range []bool{false, true} {
				p.Terminal = terminal
				io := l.bareFIFOs(fmt.Sprint(round, kind, terminal), terminal)
				exec, name := "", fmt.Sprintf("%s, terminal %v, %q", kind, terminal, p.Args[2])
				began := time.Now()
				if kind == "init" {
					l.bundleAgain("c1", p)
					l.run("c1", io)
				} else {
					exec = "e1"
					l.bundleAgain("c1", sleeper())
					l.run("c1", nil)
					l.mustExec("c1", exec, p, io)
					l.mustStart("c1", exec)
				}
				if got := l.wait("c1", exec); got != 3 {
					t.Errorf("%s: exit status %d", name, got)
				}
				l.mustDelete("c1", exec)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("%s: all of it took %v", name, took)
				}
				if exec != "" {
					l.finish("c1")
				}
			}
		}
	}
}

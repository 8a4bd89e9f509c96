package stdio

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

func TestMain(m *testing.M) {
	if err := reaper.Init(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if path := os.Getenv(rotateVariable); path != "" {
		from, err := strconv.Atoi(os.Getenv("FROM"))
		if err != nil {
			panic(err)
		}
		logForEver(path, from)
	}
	os.Exit(m.Run())
}

// census fails the test if, in the end, there are other descriptors or more goroutines of this
// package than now, or any children, to which orphans belong too. It must be called before anything that adds a cleanup of its own.
func census(t *testing.T) {
	t.Helper()
	before, running := descriptors(t), goroutines()
	t.Cleanup(func() {
		eventually(t, "descriptors to be "+strings.Join(before, " "), func() (bool, string) {
			now := descriptors(t)
			return slices.Equal(before, now), strings.Join(now, " ")
		})
		eventually(t, "goroutines to end", func() (bool, string) {
			now := goroutines()
			return len(now) <= len(running), strings.Join(now, "\n\n")
		})
		eventually(t, "children to end", func() (bool, string) {
			now := children(t)
			return len(now) == 0, strings.Join(now, " ")
		})
	})
}

// descriptors lists what this process has open, but for what Go's runtime opens once and keeps.
func descriptors(t *testing.T) []string {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, entry := range dir {
		link, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err != nil || strings.HasPrefix(link, "anon_inode:") || strings.HasPrefix(link, "/proc/") ||
			strings.HasPrefix(link, "pidfd:") {
			continue
		}
		list = append(list, entry.Name()+"="+link)
	}
	slices.Sort(list)
	return list
}

// children lists the pids of our children.
func children(t *testing.T) []string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended, and left its children to another
		}
		list = append(list, strings.Fields(string(b))...)
	}
	return list
}

// orphan kills, in the end, the process whose pid is in file, which a script left behind.
func orphan(t *testing.T, file string) {
	t.Helper()
	t.Cleanup(func() {
		var pid int
		if _, err := fmt.Sscan(content(t, file), &pid); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	})
}

// goroutines lists those that run this package's code, but for tests.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var list []string
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		for _, name := range []string{"(*relay)", "(*logger)", "(*IO)", "(*Presence)", "farewell"} {
			if strings.Contains(stack, "holdfast/stdio."+name) {
				list = append(list, stack)
				break
			}
		}
	}
	return list
}

// eventually polls until ok, for up to 10 s, and shows what it saw last.
func eventually(t *testing.T, what string, check func() (ok bool, saw string)) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		ok, saw := check()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s; saw %s", what, saw)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// within fails the test if c is not closed soon.
func within(t *testing.T, limit time.Duration, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
}

// mkfifo makes a FIFO as a client does.
func mkfifo(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// openIO opens streams that the test's cleanup closes.
func openIO(t *testing.T, cfg Config) *IO {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// syncBuffer takes log lines from any goroutine.
type syncBuffer struct {
	mu sync.Mutex // guards what follows
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// holders counts our descriptors of path.
func holders(t *testing.T, path string) int {
	t.Helper()
	n := 0
	for _, d := range descriptors(t) {
		if strings.HasSuffix(d, "="+path) {
			n++
		}
	}
	return n
}

// run starts a process on s as the runtime would, and then the streams.
func run(t *testing.T, s *IO, path string, args ...string) *reaper.Child {
	t.Helper()
	in, out, errOut := s.Files()
	c, err := reaper.Start(&reaper.Command{
		Path: path, Args: args, Env: os.Environ(), Files: []*os.File{in, out, errOut},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.SignalGroup(unix.SIGKILL); <-c.Done() })
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// sh is run with a shell script.
func sh(t *testing.T, s *IO, script string) *reaper.Child {
	t.Helper()
	return run(t, s, "/bin/sh", "-c", script)
}

// exit waits for c's end and tells s.
func exit(t *testing.T, s *IO, c *reaper.Child) {
	t.Helper()
	within(t, 30*time.Second, "exit of the process", c.Done())
	s.Exited()
}

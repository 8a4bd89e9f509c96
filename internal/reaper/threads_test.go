package reaper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func countThreads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// atOnce has n system calls under way at a time, each of which needs a thread, and then do done on
// each thread. As the shim is built a thread that sleeps is noticed after 2 to 4 ms, one after the other.
func atOnce(n int, do func()) {
	var begun, all sync.WaitGroup
	begun.Add(n)
	for range n {
		all.Go(func() {
			begun.Done()
			begun.Wait()
			if err := unix.Nanosleep(&unix.Timespec{Nsec: 250e6}, nil); err != nil && err != unix.EINTR { //nolint:errorlint // an errno
				panic(err)
			}
			do()
		})
	}
	all.Wait()
}

// shedTo sheds until at most keep threads are there.
func shedTo(t *testing.T, keep int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ShedThreads(keep)
		if n := countThreads(t); n <= keep+1 {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%d threads are left, want about %d", n, keep)
		}
	}
}

func TestIdleThreadsAreShed(t *testing.T) {
	atOnce(20, func() {})
	if n := countThreads(t); n < 20 {
		t.Fatalf("there are only %d threads to shed", n)
	}
	shedTo(t, 10)
	ShedThreads(1000) // there are not as many
	atOnce(20, func() {})
}

// TestCommandsSurviveTheShedding starts commands that die with us from many threads, which are
// spared as long as those live.
func TestCommandsSurviveTheShedding(t *testing.T) {
	var mu sync.Mutex
	var commands []*Child
	atOnce(8, func() {
		c, err := Start(&Command{Path: "sleep", Args: []string{"1000"}, DieWithParent: true})
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		commands = append(commands, c)
	})
	atOnce(20, func() {}) // so that there is something to shed
	before := countThreads(t)
	ShedThreads(1)
	for end := time.Now().Add(20 * time.Second); countThreads(t) >= before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("of %d threads none was shed", before)
		}
	}
	for _, c := range commands {
		select {
		case <-c.Done():
			t.Errorf("a command has died: %+v", c.Exit())
		default:
		}
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		<-c.Done()
	}
	if _, err := Start(&Command{Path: "/nonexistent", DieWithParent: true}); err == nil {
		t.Error("what is not there was started")
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.parents) != 0 {
		t.Errorf("threads are tied to commands that have ended: %v", table.parents)
	}
}

// TestAdoptedSurviveTheShedding has a process that became ours ask to die with its parent: that is the
// thread that the kernel took for it, which must never end.
func TestAdoptedSurviveTheShedding(t *testing.T) {
	dir := t.TempDir()
	const script = `(until [ -e go ]; do sleep 0.01; done; exec setpriv --pdeathsig KILL sleep 1000) & echo $! >pid`
	var children []*Child
	atOnce(8, func() {}) // so that the commands are not all started by the same thread
	for range 4 {
		c, err := Adopt(func() (int, error) {
			command, err := Start(&Command{Path: "sh", Args: []string{"-c", script}, Dir: dir})
			if err != nil {
				return 0, err
			}
			<-command.Done()
			text, err := os.ReadFile(filepath.Join(dir, "pid"))
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(strings.TrimSpace(string(text)))
		})
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range children {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c.Pid())); err == nil && string(name) == "sleep\n" {
				if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.Pid())); string(line) == "sleep\x001000\x00" {
					break
				}
			}
			if time.Now().After(end) {
				t.Fatalf("pid %d does not get to its program", c.Pid())
			}
		}
	}
	atOnce(20, func() {})
	shedTo(t, 10)
	shedTo(t, 8)
	for _, c := range children {
		select {
		case <-c.Done():
			t.Errorf("an adopted process has died: %+v", c.Exit())
		default:
		}
		_ = c.Signal(syscall.SIGKILL) // an error says that it is dead
		<-c.Done()
	}
}

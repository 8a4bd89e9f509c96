package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A load is what a container writes, and how much memory it is given.
type load struct {
	rounds int    // of the numbers up to perRound, each after its own number
	memory string // for ctr's --memory-limit; "" = none
}

// perRound numbers are a hundred kilobytes.
const perRound = 20_000

// most is what a container may write while nobody reads: more than 32 MiB where the kernel grants
// pipes of 64; or, where it grants 1 MiB, more than the half of that which an init process of so
// little memory has from the beginning.
func most(t *testing.T) load {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 64<<20); err == nil {
		return load{rounds: 310}
	}
	return load{8, strconv.Itoa(16 << 20)}
}

// output is what the container writes.
func (l load) output() string {
	var numbers, all strings.Builder
	for i := range perRound {
		fmt.Fprintln(&numbers, i+1)
	}
	for i := range l.rounds {
		fmt.Fprintf(&all, "%d\n%s", i+1, &numbers)
	}
	return all.String()
}

// TestOutputPilesUpWhileContainerdIsAway ends containerd, and has a container write then, with no
// client attached. It must not be kept from going on, and who attaches later gets every byte.
func TestOutputPilesUpWhileContainerdIsAway(t *testing.T) {
	if upstream {
		t.Skip("upstream's shim keeps the container waiting")
	}
	for _, row := range []struct {
		name, version, runtime string
		end                    func(*containerd, *testing.T)
		options                []option
	}{
		{"containerd-1.6 stopped", "1.6", "runc", (*containerd).stop, nil},
		{"containerd-2.4 killed", "2.4", "runc", (*containerd).kill, nil},
		{"containerd-1.6 stopped, crun", "1.6", "crun", (*containerd).stop, []option{isolate}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := launch(t, row.version, row.options...)
			testPileUp(t, c, row.end, "--runc-binary", row.runtime)
		})
	}
}

func testPileUp(t *testing.T, c *containerd, end func(*containerd, *testing.T), flags ...string) {
	load := most(t)
	flags = append(flags, "--runtime", c.standard().flag, "--fifo-dir", c.dir+"/fifo")
	if load.memory != "" {
		flags = append(flags, "--memory-limit", load.memory)
	}
	script := fmt.Sprintf(`await() { while [ ! -e $1 ]; do sleep 0.05; done; }
seq %d >/numbers; touch /ready; await /go
for i in $(seq %d); do echo $i; cat /numbers; done
touch /written; await /stop; echo last; exit 9`, perRound, load.rounds)
	id, pid := c.detached(t, flags, "sh", "-c", script)
	touched(t, pid, "/ready", c.dir)
	end(c, t)
	touch(t, pid, "/go")
	began := time.Now()
	touched(t, pid, "/written", c.dir)
	want := load.output()
	t.Logf("%d bytes were written after %v, with nobody to read them", len(want), time.Since(began))

	c.start(t)
	p := c.attach(t, id)
	arrived := func() string { return fmt.Sprintf("%d bytes have arrived, want %d", p.Len(), len(want)) }
	progressing(t, arrived, func() error {
		if p.Len() < len(want) {
			return errors.New("not all has arrived")
		}
		return nil
	})
	touch(t, pid, "/stop")
	if got := p.wait(t); got != 9 {
		t.Errorf("task attach ended with %d, want 9", got)
	}
	want += "last\n"
	if got := p.String(); got != want {
		t.Errorf("%d bytes arrived, want %d; or they are others", len(got), len(want))
	}
	c.ok(t, "container", "rm", id)
}

// touched waits until a container has made a file. If it does not it may be kept waiting by one of
// the FIFOs below dir; as long as more and more lies in them it is not.
func touched(t *testing.T, pid int, path, dir string) {
	t.Helper()
	progressing(t, func() string { return piled(dir) }, func() error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, path))
		return err
	})
}

// progressing is eventually for what may take longer, on a machine that is emulated and busy: it
// fails when state has stayed the same for as long as eventually waits.
func progressing(t *testing.T, state func() string, check func() error) {
	t.Helper()
	for last := ""; ; {
		err := poll(check)
		if err == nil {
			return
		}
		now := state()
		if now == last {
			t.Fatalf("%v; %s", err, now)
		}
		last = now
	}
}

// piled tells what lies in the FIFOs below dir.
func piled(dir string) string {
	all := "the FIFOs hold:"
	paths, err := filepath.Glob(filepath.Join(dir, "fifo", "*", "*"))
	if err != nil {
		return err.Error()
	}
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err.Error()
		}
		held, heldErr := unix.IoctlGetInt(fd, unix.TIOCINQ)
		size, sizeErr := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
		if err := errors.Join(heldErr, sizeErr, unix.Close(fd)); err != nil {
			return err.Error()
		}
		all += fmt.Sprintf(" %s %d of %d bytes", filepath.Base(path), held, size)
	}
	return all
}

// An attachment is a ctr that is attached to a task, and what it has printed so far.
type attachment struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer // to be read when it has ended
	ended  chan struct{}

	mu  sync.Mutex // guards what follows
	out bytes.Buffer
}

func (a *attachment) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(p)
}

func (a *attachment) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Len()
}

func (a *attachment) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.String()
}

// attach attaches ctr to a task whose client has gone. It deletes the task at the end.
func (c *containerd) attach(t *testing.T, id string) *attachment {
	t.Helper()
	line := c.command("task", "attach", id)
	a := &attachment{cmd: exec.Command(line[0], line[1:]...), ended: make(chan struct{})}
	a.cmd.Env = environment()
	a.cmd.Stdin, a.cmd.Stdout, a.cmd.Stderr = strings.NewReader(""), a, &a.stderr
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends when ctr does
		_ = a.cmd.Wait()
		close(a.ended)
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-a.ended
	})
	return a
}

// wait returns ctr's exit status.
func (a *attachment) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-a.ended:
	case <-time.After(patience):
		t.Fatalf("ctr did not end within %v", patience)
	}
	if a.stderr.Len() > 0 {
		t.Logf("ctr says %q", &a.stderr)
	}
	return a.cmd.ProcessState.ExitCode()
}

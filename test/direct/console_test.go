package direct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

// onTTY is a process that runs a shell script on a terminal.
func onTTY(script string) client.BundleConfig {
	cfg := sh(script)
	cfg.Terminal = true
	return cfg
}

// A terminal passes on megabytes without losing a byte, and the last ones before its end.
func TestTerminalsPassOnEveryByte(t *testing.T) {
	const size, execs, times = 7_000_000, 4, 5
	content := randomLetters(size)
	l := newLab(t, labConfig{bundle: sleeper()})
	l.write(filepath.Join(l.dir, "c1", "rootfs", "source"), string(content), 0o644)
	l.run("c1", nil)
	began := time.Now()
	for i := range execs {
		exec := fmt.Sprintf("e%d", i)
		check := &check{want: []byte(strings.Repeat(string(content), times))}
		io := l.io(exec, client.IOConfig{Stdout: check, Terminal: true, Forget: true})
		l.mustExec("c1", exec, onTTY(strings.Repeat("cat /source;", times)), io)
		l.mustStart("c1", exec)
		if status := l.wait("c1", exec); status != 0 {
			t.Errorf("%s: exit status %d", exec, status)
		}
		l.output(io.Out)
		if err := check.done(); err != nil {
			t.Errorf("%s: %v", exec, err)
		}
		l.mustDelete("c1", exec)
		io.Close()
	}
	took := time.Since(began)
	t.Logf("%d MB in %v: %d MB/s", size*execs*times/1_000_000, took.Round(time.Millisecond), int(float64(size*execs*times)/took.Seconds()/1e6))
	l.finish("c1")
}

// A size that was set before the start is the one that the process finds.
func TestTerminalHasTheSizeFromBeforeTheStart(t *testing.T) {
	cfg := onTTY("stty size; sleep 1000")
	l := newLab(t, labConfig{bundle: cfg})
	execs := []string{"", "e1"}
	if os.Getenv(runtimeVariable) == "crun" {
		// crun 1.8.1 lets an exec run before it has set the size: of 150, run by hand on a busy machine, 29
		// found none. We set it too, when crun hands over the console, which is no sooner.
		execs = execs[:1]
	}
	for _, exec := range execs {
		io := l.io("s"+exec, client.IOConfig{Terminal: true})
		if exec == "" {
			l.mustCreate("c1", io)
		} else {
			l.mustExec("c1", exec, cfg, io)
		}
		for _, width := range []uint32{20, 123} { // the last one counts
			if err := l.resize("c1", exec, width, 45); err != nil {
				t.Fatal(err)
			}
		}
		l.mustStart("c1", exec)
		if err := io.Out.WaitFor(within(t), "45 123\r\n"); err != nil {
			t.Errorf("exec %q: %v", exec, err)
		}
	}
	for _, exec := range execs[1:] {
		l.kill("c1", exec, 9)
		l.wait("c1", exec)
		l.mustDelete("c1", exec)
	}
	l.finish("c1")
}

func (l *lab) resize(id, exec string, width, height uint32) error {
	_, err := l.ResizePty(within(l.t), &task.ResizePtyRequest{ID: id, ExecID: exec, Width: width, Height: height})
	return err
}

// Resizing races with the exit and with the deletion: whichever comes first, nothing else fails.
func TestResizesRaceWithTheExit(t *testing.T) {
	const rounds, resizers = 30, 4
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	before := l.census()
	for i := range rounds {
		exec := fmt.Sprintf("e%d", i)
		io := l.io(exec, client.IOConfig{Terminal: true})
		// It is told of each new size, and exits amid them.
		l.mustExec("c1", exec, onTTY("trap : WINCH; echo bye; exit 3"), io)
		gone := make(chan struct{})
		calls := make([]int, resizers)
		var all sync.WaitGroup
		for r := range resizers {
			all.Go(func() { calls[r] = l.resizeUntil(gone, exec, r) })
		}
		l.mustStart("c1", exec)
		if status := l.wait("c1", exec); status != 3 {
			t.Errorf("exit status %d", status)
		}
		if out := l.output(io.Out); out != "bye\r\n" {
			t.Errorf("the terminal shows %q", out)
		}
		if status := l.mustDelete("c1", exec).GetExitStatus(); status != 3 {
			t.Errorf("deleted with status %d", status)
		}
		close(gone)
		all.Wait()
		for r, n := range calls {
			if n == 0 {
				t.Errorf("round %d: resizer %d has not resized", i, r)
			}
		}
		io.Close()
	}
	l.unchanged(before)
	l.finish("c1")
}

// resizeUntil resizes until gone is closed, and returns how often. It succeeds, or is told that the
// process has exited, or has been deleted.
func (l *lab) resizeUntil(gone <-chan struct{}, exec string, seed int) (calls int) {
	for {
		select {
		case <-gone:
			return calls
		default:
		}
		err := l.resize("c1", exec, uint32(40+calls%100), uint32(10+seed))
		if err != nil && !errors.Is(err, errdefs.ErrFailedPrecondition) && !errors.Is(err, errdefs.ErrNotFound) {
			l.t.Errorf("resize: %v", err)
		}
		calls++
	}
}

// The shim has one master for each live terminal, and none afterwards.
func TestShimHasOneMasterForEachTerminal(t *testing.T) {
	l := newLab(t, labConfig{bundle: onTTY("sleep 1000")})
	masters := func(when string, want int) {
		t.Helper()
		if c := l.census(); c.Ptmx != want {
			t.Errorf("%s: the shim has %d masters, want %d: %v", when, c.Ptmx, want, c.Links)
		}
	}
	masters("at first", 0)
	l.mustCreate("c1", l.io("c1", client.IOConfig{Stdin: true, Terminal: true}))
	masters("created", 1)
	l.mustStart("c1", "")
	masters("running", 1)
	const execs = 5
	for i := range execs {
		exec := fmt.Sprintf("e%d", i)
		l.mustExec("c1", exec, onTTY("sleep 1000"), l.io(exec, client.IOConfig{Stdin: i%2 == 0, Terminal: true}))
		masters("exec added", 1+i)
		l.mustStart("c1", exec)
		masters("exec started", 2+i)
		if got := l.status("c1", exec); got != tasktypes.Status_RUNNING {
			t.Errorf("status %v", got)
		}
	}
	for i := range execs {
		exec := fmt.Sprintf("e%d", i)
		l.kill("c1", exec, 9)
		l.wait("c1", exec)
		l.mustDelete("c1", exec)
		masters("exec deleted", execs-i)
	}
	l.finish("c1")
	masters("deleted", 0)
}

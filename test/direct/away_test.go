package direct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// hangUp is what the shim sees of a manager that dies.
func (l *lab) hangUp() {
	l.t.Helper()
	l.Shim.Close()
}

// comeBack is the same manager, restarted.
func (l *lab) comeBack() {
	l.t.Helper()
	old := l.Shim
	shim, err := client.Dial(within(l.t), l.Result.Address)
	if err != nil {
		l.t.Fatal(err)
	}
	shim.Namespace, shim.Version = old.Namespace, old.Version
	l.Shim = shim
}

// unread makes the FIFOs of a process, which nobody has open.
func (l *lab) unread(name string, cfg client.IOConfig) *client.IO {
	l.t.Helper()
	io := l.io(name, cfg)
	io.Close()
	return io
}

// touched waits until a script in the container has made a file in its root directory.
func (l *lab) touched(name string) {
	l.t.Helper()
	l.eventually("the container says "+name, func() bool {
		_, err := os.Stat(filepath.Join(l.dir, "c1", "rootfs", name))
		return err == nil
	})
}

// pipeLimit is the size up to which the kernel lets us make pipes, of up to 64 MiB.
func pipeLimit(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for size := 64 << 20; size > 64<<10; size /= 2 {
		if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, size); err == nil {
			return size
		}
	}
	t.Fatal("no pipe can grow")
	return 0
}

// inPipe tells how much lies in a FIFO, whether it is full, and how large it is.
func inPipe(t *testing.T, path string) (held int, full bool, size int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0) // unlike open(2) it goes on after EINTR
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if held, err = unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil {
		t.Fatal(err)
	}
	if size, err = unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		if _, err = unix.Poll(fds, 0); err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	return held, fds[0].Revents&unix.POLLOUT == 0, size
}

// numbers is what `seq n` writes.
func numbers(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// A container whose manager is away, and of which nobody reads anything, goes on and ends.
func TestContainerGoesOnWhileTheManagerIsAway(t *testing.T) {
	for _, exec := range []bool{false, true} {
		t.Run(map[bool]string{false: "init", true: "exec"}[exec], func(t *testing.T) {
			// More than 32 MiB in a FIFO of 64; or, where the kernel grants 1 MiB, more than the half of
			// that which an init process of so little memory has from the beginning.
			lines, memory := 4_300_000, int64(0)
			if pipeLimit(t) < 64<<20 {
				lines, memory = 150_000, 16<<20
			}
			writer := sh(fmt.Sprintf("until [ -e /go ]; do sleep 0.01; done; seq %d; >/done", lines))
			cfg, id := writer, ""
			if exec {
				cfg, id = sleeper(), "e1"
			}
			cfg.MemoryLimit = memory
			l := newLab(t, labConfig{bundle: cfg})
			io := l.unread("streams", client.IOConfig{})
			if exec {
				l.run("c1", nil)
				l.mustExec("c1", id, writer, io)
				l.mustStart("c1", id)
			} else {
				l.run("c1", io)
			}
			l.hangUp()
			l.write(filepath.Join(l.dir, "c1", "rootfs", "go"), "", 0o600)
			began := time.Now()
			l.touched("done")
			t.Logf("done after %v", time.Since(began))
			l.event(client.Exits("c1", id))
			back := l.io("streams", client.IOConfig{})
			if got, want := l.output(back.Out), numbers(lines); got != want {
				t.Errorf("%d bytes of %d arrived, or others", len(got), len(want))
			}
			l.comeBack()
			if status := l.wait("c1", id); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if exec {
				l.mustDelete("c1", id)
				l.kill("c1", "", 9)
				l.wait("c1", "")
			}
			l.mustDelete("c1", "")
		})
	}
}

// What lies in a FIFO counts as the container's memory. It must not be killed for it.
func TestContainerIsNotKilledForWhatNobodyReads(t *testing.T) {
	cfg := sh("yes & exec yes >&2")
	cfg.MemoryLimit = 32 << 20
	l := newLab(t, labConfig{bundle: cfg})
	io := l.unread("c1", client.IOConfig{})
	l.run("c1", io)
	l.hangUp()
	total, since := 0, time.Now()
	l.eventually("both FIFOs stay full", func() bool {
		out, fullOut, _ := inPipe(t, io.Stdout)
		err, fullErr, _ := inPipe(t, io.Stderr)
		if !fullOut || !fullErr || out+err != total {
			total, since = out+err, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	usage := strings.NewReplacer("limit_in_bytes", "usage_in_bytes", "memory.max", "memory.current").Replace(l.limitFile("c1"))
	used, err := strconv.Atoi(strings.TrimSpace(l.read(usage)))
	if err != nil {
		t.Fatal(err)
	}
	if total > 4<<20 || total < 2<<20 {
		t.Errorf("%d bytes lie in the FIFOs, want 2 to 4 MiB", total)
	}
	if used < total {
		t.Errorf("the container is charged %d bytes, less than the %d that lie in its FIFOs", used, total)
	}
	l.comeBack()
	if kills, _ := l.memory("c1"); kills != 0 {
		t.Errorf("%d OOM kills", kills)
	}
	l.kill("c1", "", 9)
	if status := l.wait("c1", ""); status != 137 {
		t.Errorf("exit status %d", status)
	}
	l.mustDelete("c1", "")
}

func TestBudgetOfAContainerIsItsAnnotation(t *testing.T) {
	cfg := sh("exec yes")
	cfg.MemoryLimit = 16 << 20 // so that its FIFOs have 512 KiB to begin with
	cfg.Annotations = map[string]string{"io.holdfast.stdio.budget": "-1"}
	l := newLab(t, labConfig{bundle: cfg})
	io := l.unread("c1", client.IOConfig{})
	l.run("c1", io)
	l.hangUp()
	since := time.Now()
	l.eventually("the FIFO stays full", func() bool {
		_, full, size := inPipe(t, io.Stdout)
		if size > 512<<10 {
			t.Fatalf("the FIFO has %d bytes", size)
		}
		if !full {
			since = time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	l.comeBack()
	l.kill("c1", "", 9)
	l.wait("c1", "")
	l.mustDelete("c1", "")

	cfg.Annotations["io.holdfast.stdio.budget"] = "much"
	l.ids = nil
	l.bundle("c1", cfg)
	if _, err := l.create("c1", nil); err == nil || !strings.Contains(err.Error(), "annotation io.holdfast.stdio.budget is no size") {
		t.Errorf("create with a budget without sense: %v", err)
	}
}

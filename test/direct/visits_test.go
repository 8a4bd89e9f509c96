package direct

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// closeIO says that there is no more input than what clients have open.
func (l *lab) closeIO(id, exec string) {
	l.t.Helper()
	if _, err := l.CloseIO(within(l.t), &task.CloseIORequest{ID: id, ExecID: exec, Stdin: true}); err != nil {
		l.t.Fatalf("close the input of %s %s: %v", id, exec, err)
	}
}

// visit opens an end of a FIFO as a client does, uses it, and closes it. The use must not wait.
func visit(path string, flags int, use func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return errors.Join(use(fd), unix.Close(fd))
}

// peek appends up to most bytes of what is in a FIFO to got. An end of the stream is an error.
func peek(path string, most int, got *strings.Builder) error {
	return visit(path, unix.O_RDONLY, func(fd int) error {
		buf := make([]byte, most)
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return nil
		case err != nil:
			return err
		case n == 0:
			return errors.New("the stream has ended")
		}
		got.Write(buf[:n])
		return nil
	})
}

// put writes text, as far as there is room for it.
func put(path, text string) (written int, err error) {
	err = visit(path, unix.O_WRONLY, func(fd int) error {
		n, err := unix.Write(fd, []byte(text))
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return nil
		}
		written = max(n, 0)
		return err
	})
	return written, err
}

// Clients come and go on all three streams, each when it likes. The process's input does not end,
// it gets no SIGPIPE, and what it says is there for whoever comes next, in order.
func TestNothingIsLostWhileClientsComeAndGo(t *testing.T) {
	for _, exec := range []string{"", "e1"} {
		t.Run(map[bool]string{true: "init", false: "exec"}[exec == ""], func(t *testing.T) {
			echo := sh("while read -r x; do echo $x; echo $x >&2; done; exit 5")
			cfg := echo
			if exec != "" {
				cfg = sleeper()
			}
			l := newLab(t, labConfig{bundle: cfg})
			io := l.unread("streams", client.IOConfig{Stdin: true})
			if exec == "" {
				l.run("c1", io)
			} else {
				l.run("c1", nil)
				l.mustExec("c1", exec, echo, io)
				l.mustStart("c1", exec)
			}
			said, out, errs := l.visits(io)
			if got := l.status("c1", exec); got != tasktypes.Status_RUNNING {
				t.Fatalf("the process is %v: it has seen an end of its input, or SIGPIPE", got)
			}
			rest := l.io("streams", client.IOConfig{})
			l.closeIO("c1", exec)
			if got := l.wait("c1", exec); got != 5 {
				t.Errorf("exit status %d, want 5", got)
			}
			same(t, "stdout", out+l.output(rest.Out), said)
			same(t, "stderr", errs+l.output(rest.Err), said)
			l.mustDelete("c1", exec)
			if exec != "" {
				l.finish("c1")
			}
		})
	}
}

// visits has many clients come and go, and returns what was said to the process, and what was read.
func (l *lab) visits(io *client.IO) (said, stdout, stderr string) {
	l.t.Helper()
	const clients = 3000
	var in, out, errs strings.Builder
	random := rand.New(rand.NewPCG(3, 4))
	for i := range clients {
		var err error
		switch random.IntN(5) {
		case 0:
			line := fmt.Sprintf("%d-%s\n", i, strings.Repeat("x", random.IntN(1000)))
			// Up to 4096 bytes are taken as a whole or not at all.
			var n int
			n, err = put(io.Stdin, line)
			in.WriteString(line[:n])
		case 1:
			_, err = put(io.Stdin, "") // who has nothing to say
		case 2, 3:
			err = peek(io.Stdout, 1+random.IntN(4000), &out)
		case 4:
			err = peek(io.Stderr, 1+random.IntN(8000), &errs)
		}
		if err != nil {
			l.t.Fatalf("client %d: %v", i, err)
		}
		if i/100%2 == 0 {
			time.Sleep(200 * time.Microsecond) // the process keeps up; at other times it is kept waiting
		}
	}
	l.t.Logf("%d bytes were said; %d and %d of them were read by clients that went", in.Len(), out.Len(), errs.Len())
	return in.String(), out.String(), errs.String()
}

// What an exec has left in its own pipe, because the client's FIFO is full, both of 256 KiB, waits for the client for
// 10 s from its exit, and no longer; nothing else does.
func TestFullFIFODelaysTheDeletionAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	const drain = 10 * time.Second
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	io := l.unread("e1", client.IOConfig{Stdin: true})
	began := time.Now()
	l.mustExec("c1", "e1", client.BundleConfig{Args: []string{"/usr/bin/head", "-c", "400000", "/dev/zero"}}, io)
	l.mustStart("c1", "e1")
	l.wait("c1", "e1")
	l.event(client.Exits("c1", "e1"))
	exited := time.Now()
	if took := exited.Sub(began); took > soon {
		t.Errorf("it took %v to start and exit", took)
	}
	l.mustDelete("c1", "e1")
	if took := time.Since(exited); took < drain-time.Second || took > drain+soon {
		t.Errorf("the deletion took %v from the exit on", took)
	}
	l.finish("c1")
}

// same compares what may be long.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes arrived, want %d; they differ from byte %d on: %.40q, want %.40q",
		what, len(got), len(want), at, got[at:], want[at:])
}

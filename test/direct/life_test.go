package direct

import (
	"testing"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

func TestWholeLife(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("echo out; echo err >&2; exit 42")})
	io := l.io("c1", client.IOConfig{})
	if pid := l.mustCreate("c1", io); pid <= 1 {
		t.Errorf("pid %d", pid)
	}
	if got := l.status("c1", ""); got != tasktypes.Status_CREATED {
		t.Errorf("status %s", got)
	}
	l.mustStart("c1", "")
	if got := l.wait("c1", ""); got != 42 {
		t.Errorf("exit status %d, want 42", got)
	}
	if out, err := l.output(io.Out), l.output(io.Err); out != "out\n" || err != "err\n" {
		t.Errorf("output %q and %q", out, err)
	}
	if got := l.mustDelete("c1", ""); got.GetExitStatus() != 42 || client.Time(got.GetExitedAt()).IsZero() {
		t.Errorf("delete answers %v", got)
	}
	_, err := l.State(within(t), &task.StateRequest{ID: "c1"})
	is(t, "state after delete", err, errdefs.ErrNotFound)
	if _, err := l.Events.Wait(within(t), client.Deletes("c1", "")); err != nil {
		t.Error(err)
	}
}

func TestExecsOfARunningContainer(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("exec sleep 1000")})
	l.run("c1", nil)
	io := l.io("e1", client.IOConfig{Stdin: true})
	if err := l.exec("c1", "e1", client.BundleConfig{Args: []string{"/bin/cat"}}, io); err != nil {
		t.Fatal(err)
	}
	l.mustStart("c1", "e1")
	if _, err := io.In.Write([]byte("through\n")); err != nil {
		t.Fatal(err)
	}
	if err := io.Out.WaitFor(within(t), "through"); err != nil {
		t.Fatal(err)
	}
	if err := io.In.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CloseIO(within(t), &task.CloseIORequest{ID: "c1", ExecID: "e1", Stdin: true}); err != nil {
		t.Fatal(err)
	}
	if got := l.wait("c1", "e1"); got != 0 {
		t.Errorf("cat ended with %d", got)
	}
	l.output(io.Out)
	l.mustDelete("c1", "e1")
	l.kill("c1", "", 9)
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d, want 137", got)
	}
	l.mustDelete("c1", "")
}

func TestTerminal(t *testing.T) {
	cfg := sh("tty; stty size; read x; echo got $x; exit 3")
	cfg.Terminal = true
	l := newLab(t, labConfig{bundle: cfg})
	io := l.io("c1", client.IOConfig{Stdin: true, Terminal: true})
	l.mustCreate("c1", io)
	if _, err := l.ResizePty(within(t), &task.ResizePtyRequest{ID: "c1", Width: 34, Height: 12}); err != nil {
		t.Fatal(err)
	}
	l.mustStart("c1", "")
	if err := io.Out.WaitFor(within(t), "12 34"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.In.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := io.Out.WaitFor(within(t), "got hello"); err != nil {
		t.Fatal(err)
	}
	if got := l.wait("c1", ""); got != 3 {
		t.Errorf("exit status %d, want 3", got)
	}
	l.output(io.Out)
	l.mustDelete("c1", "")
}

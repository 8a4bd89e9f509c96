package direct

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"holdfast/internal/client"
)

// counter counts aloud, so that one can hear whether it goes on or begins anew.
const counter = "i=0; while :; do i=$((i+1)); echo count $i; sleep 0.2; done"

// needCRIU skips the test where the kernel does not allow what CRIU does.
func needCRIU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("needs criu: checkpoints for real")
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this kernel: %v: %s", err, out)
	}
}

func TestCheckpointAndRestore(t *testing.T) {
	needCRIU(t)
	for _, row := range []struct {
		name     string
		terminal bool
		io       *client.IOConfig
	}{
		{"without streams", false, nil},
		{"FIFOs", false, &client.IOConfig{}},
		{"terminal", true, &client.IOConfig{Terminal: true}},
	} {
		t.Run(row.name+", exit", func(t *testing.T) { testGoesOnElsewhere(t, row.terminal, row.io) })
		if row.io != nil {
			t.Run(row.name+", leave running", func(t *testing.T) { testGoesOnHere(t, row.terminal, row.io) })
		}
	}
	t.Run("paused", testCheckpointOfPaused)
	t.Run("parent path", testCheckpointWithParent)
	t.Run("failure", testFailedCheckpoint)
}

// testGoesOnElsewhere ends a container by a checkpoint and has another one go on from there.
func testGoesOnElsewhere(t *testing.T, terminal bool, config *client.IOConfig) {
	cfg := sh(counter)
	cfg.Terminal = terminal
	l := newLab(t, labConfig{bundle: cfg})
	streams := func(name string) *client.IO {
		if config == nil {
			return nil
		}
		return l.io(name, *config)
	}
	first := streams("c1")
	l.run("c1", first)
	if first != nil {
		if err := first.Out.WaitFor(within(t), "count 3"); err != nil {
			t.Fatal(err)
		}
	}
	image := l.image("image")
	l.checkpoint("c1", image, &options.CheckpointOptions{Exit: true, Terminal: terminal})
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status after the checkpoint %d, want 137", got)
	}
	l.mustDelete("c1", "")
	second := streams("again")
	l.restore("c1", cfg, image, second)
	l.wentOn(second)
	l.finish("c1")
}

// testGoesOnHere writes a container, which then goes on as if nothing had been; CRIU works in a
// directory of the client's.
func testGoesOnHere(t *testing.T, terminal bool, config *client.IOConfig) {
	cfg := sh(counter)
	cfg.Terminal = terminal
	l := newLab(t, labConfig{bundle: cfg})
	io := l.io("c1", *config)
	l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "count 3"); err != nil {
		t.Fatal(err)
	}
	image, work := l.image("image"), l.image("criu")
	l.checkpoint("c1", image, &options.CheckpointOptions{Terminal: terminal, WorkPath: work})
	if _, err := os.Stat(filepath.Join(work, "dump.log")); err != nil {
		t.Errorf("CRIU's log is not where it was to work: %v", err)
	}
	if got := l.status("c1", ""); got != tasktypes.Status_RUNNING {
		t.Errorf("status after the checkpoint: %s", got)
	}
	before := strings.Count(io.Out.String(), "count")
	l.eventually("it counts on", func() bool { return strings.Count(io.Out.String(), "count") > before+1 })
	l.finish("c1")

	again := l.io("again", *config)
	l.restore("c1", cfg, image, again)
	l.wentOn(again)
	l.finish("c1")
}

// Clients pause a task first and resume it afterwards (contract 3.9).
func testCheckpointOfPaused(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh(counter)})
	io := l.io("c1", client.IOConfig{})
	l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "count 2"); err != nil {
		t.Fatal(err)
	}
	l.pause("c1")
	l.checkpoint("c1", l.image("image"), nil)
	if got := l.status("c1", ""); got != tasktypes.Status_PAUSED {
		t.Errorf("status after the checkpoint: %s", got)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "c1", "work", "criu-work")); err == nil {
		t.Error("the directory where CRIU has worked is still there")
	}
	if _, err := l.Resume(within(t), &task.ResumeRequest{ID: "c1"}); err != nil {
		t.Fatal(err)
	}
	before := strings.Count(io.Out.String(), "count")
	l.eventually("it counts on", func() bool { return strings.Count(io.Out.String(), "count") > before+1 })
	l.finish("c1")
}

// A checkpoint may build on one that was made before, as the runtime does while the container runs.
func testCheckpointWithParent(t *testing.T) {
	cfg := sh(counter)
	l := newLab(t, labConfig{bundle: cfg})
	io := l.io("c1", client.IOConfig{})
	l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "count 2"); err != nil {
		t.Fatal(err)
	}
	first, second := l.image("first"), l.image("second")
	before := exec.Command("runc", "--root", filepath.Join("/run/containerd/runc", l.name), "checkpoint", "--pre-dump",
		"--image-path", first, "--work-path", first, "c1")
	if out, err := before.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", before, err, out)
	}
	l.checkpoint("c1", second, &options.CheckpointOptions{Exit: true, ParentPath: "../first"})
	if target, err := os.Readlink(filepath.Join(second, "parent")); err != nil || target != "../first" {
		t.Errorf("the second image builds on %q: %v", target, err)
	}
	l.wait("c1", "")
	l.mustDelete("c1", "")
	again := l.io("again", client.IOConfig{})
	l.restore("c1", cfg, second, again)
	l.wentOn(again)
	l.finish("c1")
}

// A container that cannot be written goes on, and the error says what CRIU says.
func testFailedCheckpoint(t *testing.T) {
	l := newLab(t, labConfig{bundle: sh("exec 9>/lock; flock 9; echo locked; exec sleep 1000")})
	io := l.io("c1", client.IOConfig{})
	l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "locked"); err != nil {
		t.Fatal(err)
	}
	err := l.tryCheckpoint("c1", l.image("image"), &options.CheckpointOptions{Exit: true})
	kept := filepath.Join(l.dir, "c1", "criu-dump.log")
	if err == nil || !strings.Contains(err.Error(), "Error (") || !strings.Contains(err.Error(), "--file-locks") ||
		!strings.HasSuffix(err.Error(), " path= "+kept) {
		t.Errorf("checkpoint with a lock: %v", err)
	}
	if log := l.read(kept); !strings.Contains(log, "--file-locks") {
		t.Errorf("the log that was kept says nothing of it: %d bytes", len(log))
	}
	if got := l.status("c1", ""); got != tasktypes.Status_RUNNING {
		t.Errorf("status after the failure: %s", got)
	}
	l.checkpoint("c1", l.image("another"), &options.CheckpointOptions{Exit: true, FileLocks: true})
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status after the checkpoint %d, want 137", got)
	}
	l.mustDelete("c1", "")
}

// image makes a directory for what CRIU writes.
func (l *lab) image(name string) string {
	l.t.Helper()
	dir := filepath.Join(l.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	return dir
}

func (l *lab) tryCheckpoint(id, image string, o *options.CheckpointOptions) error {
	l.t.Helper()
	r := &task.CheckpointTaskRequest{ID: id, Path: image}
	if o != nil {
		r.Options = pack(l.t, o)
	}
	_, err := l.Checkpoint(within(l.t), r)
	return err
}

func (l *lab) checkpoint(id, image string, o *options.CheckpointOptions) {
	l.t.Helper()
	if err := l.tryCheckpoint(id, image, o); err != nil {
		l.t.Fatalf("checkpoint: %v", err)
	}
}

// restore creates a container from an image and starts it.
func (l *lab) restore(id string, cfg client.BundleConfig, image string, io *client.IO) {
	l.t.Helper()
	bundle := l.bundle(id, cfg)
	if err := os.MkdirAll(filepath.Join(bundle, "work"), 0o700); err != nil {
		l.t.Fatal(err)
	}
	r := &task.CreateTaskRequest{ID: id, Bundle: bundle, Checkpoint: image, Options: l.any()}
	if io != nil {
		r.Stdin, r.Stdout, r.Stderr, r.Terminal = io.Stdin, io.Stdout, io.Stderr, io.Terminal
	}
	a, err := l.Create(within(l.t), r)
	if err != nil || a.GetPid() != 0 {
		l.t.Fatalf("create from a checkpoint: pid %d, %v", a.GetPid(), err)
	}
	l.mustStart(id, "")
	if got := l.status(id, ""); got != tasktypes.Status_RUNNING {
		l.t.Errorf("status after the restore: %s", got)
	}
	if kills, _ := l.memory(id); kills != 0 { // its cgroup is known
		l.t.Errorf("%d OOM kills", kills)
	}
}

// wentOn waits until a restored container says that it goes on where it was.
func (l *lab) wentOn(io *client.IO) {
	l.t.Helper()
	if io == nil {
		return
	}
	if err := io.Out.WaitFor(within(l.t), "count"); err != nil {
		l.t.Fatal(err)
	}
	if text := io.Out.String(); strings.Contains(text, "count 1\n") || strings.Contains(text, "count 1\r") {
		l.t.Errorf("the restored container began anew: %q", text)
	}
}

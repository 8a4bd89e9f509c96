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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

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

// TestCheckpointAndRestore ends a container by a checkpoint and has another one go on from there.
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
		t.Run(row.name, func(t *testing.T) {
			cfg := sh(counter)
			cfg.Terminal = row.terminal
			l := newLab(t, labConfig{bundle: cfg})
			streams := func(name string) *client.IO {
				if row.io == nil {
					return nil
				}
				return l.io(name, *row.io)
			}
			first := streams("c1")
			l.run("c1", first)
			if first != nil {
				if err := first.Out.WaitFor(within(t), "count 3"); err != nil {
					t.Fatal(err)
				}
			}
			image := filepath.Join(l.dir, "image")
			l.checkpoint(t, "c1", image, &options.CheckpointOptions{Exit: true, Terminal: row.terminal})
			if got := l.wait("c1", ""); got != 137 {
				t.Errorf("exit status after the checkpoint %d, want 137", got)
			}
			l.mustDelete("c1", "")
			second := streams("again")
			l.restore(t, "c1", cfg, image, second)
			if second != nil {
				if err := second.Out.WaitFor(within(t), "count"); err != nil {
					t.Fatal(err)
				}
				if text := second.Out.String(); strings.Contains(text, "count 1\n") || strings.Contains(text, "count 1\r") {
					t.Errorf("the restored container began anew: %q", text)
				}
			}
			l.kill("c1", "", 9)
			l.wait("c1", "")
			l.mustDelete("c1", "")
		})
	}
}

func (l *lab) checkpoint(t *testing.T, id, image string, o *options.CheckpointOptions) {
	t.Helper()
	if err := os.MkdirAll(image, 0o700); err != nil {
		t.Fatal(err)
	}
	value, err := proto.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Checkpoint(within(t), &task.CheckpointTaskRequest{
		ID: id, Path: image, Options: &anypb.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: value},
	}); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
}

// restore creates a container from an image and starts it.
func (l *lab) restore(t *testing.T, id string, cfg client.BundleConfig, image string, io *client.IO) {
	t.Helper()
	bundle := l.bundle(id, cfg)
	if err := os.MkdirAll(filepath.Join(bundle, "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := &task.CreateTaskRequest{ID: id, Bundle: bundle, Checkpoint: image, Options: l.any()}
	if io != nil {
		r.Stdin, r.Stdout, r.Stderr, r.Terminal = io.Stdin, io.Stdout, io.Stderr, io.Terminal
	}
	a, err := l.Create(within(t), r)
	if err != nil || a.GetPid() != 0 {
		t.Fatalf("create from a checkpoint: pid %d, %v", a.GetPid(), err)
	}
	l.mustStart(id, "")
	if got := l.status(id, ""); got != tasktypes.Status_RUNNING {
		t.Errorf("status after the restore: %s", got)
	}
}

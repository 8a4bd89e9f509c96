package direct

import (
	"os"
	"path/filepath"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	options "github.com/containerd/containerd/api/types/runc/options"
)

// A runtime that dies after it has frozen the container, but before it says so, leaves it running.
func TestKilledPauseLeavesNothingFrozen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wrap")
	script := "#!/bin/sh\ncase \" $* \" in *\" pause \"*) runc \"$@\"; kill -9 $$;; esac\nexec runc \"$@\"\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, labConfig{bundle: sleeper(), options: &options.Options{BinaryName: path}})
	l.run("c1", nil)
	if err := l.tryPause("c1"); err == nil {
		t.Error("paused")
	}
	l.runExec("c1", "e1", sh("exit 3")) // it does not run in what is frozen
	if got := l.wait("c1", "e1"); got != 3 {
		t.Errorf("exit status %d", got)
	}
	if _, err := l.Delete(within(t), &task.DeleteRequest{ID: "c1", ExecID: "e1"}); err != nil {
		t.Error(err)
	}
	l.finish("c1")
}

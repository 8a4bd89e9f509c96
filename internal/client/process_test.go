package client_test

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

func TestProcessIsWaitedForAndKilled(t *testing.T) {
	leak.Check(t)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := client.OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	brief, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := p.Wait(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: error %v, want deadline exceeded", err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	// Ended, though nobody has waited for it yet.
	if err := p.Wait(deadline(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	cmd.Wait() // it was killed
	if err := p.Kill(); err != nil {
		t.Errorf("after its end: %v", err)
	}
	if err := p.Wait(deadline(t, 10*time.Second)); err != nil {
		t.Errorf("after its end: %v", err)
	}
	if _, err := client.OpenProcess(1 << 30); !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("no such process: error %v", err)
	}
}

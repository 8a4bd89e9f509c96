package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
)

// TestExitWaitsUntilTheLoggerHasReadEverything has a logger that is slow to begin. nerdctl's
// stops reading when Wait returns; it lost up to half of the lines (managers.md, section 5).
func TestExitWaitsUntilTheLoggerHasReadEverything(t *testing.T) {
	const lines, delay = 3000, time.Second
	l := newLab(t, labConfig{bundle: sh(fmt.Sprintf("seq %d", lines))})
	logger, out := filepath.Join(l.dir, "logger"), filepath.Join(l.dir, "out")
	script := fmt.Sprintf("#!/bin/sh\nexec 5>&-\nsleep %v\nexec cat <&3 >$2\n", delay.Seconds())
	if err := os.WriteFile(logger, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	uri := "binary://" + logger + "?out=" + out
	if _, err := l.Create(within(t), &task.CreateTaskRequest{
		ID: "c1", Bundle: filepath.Join(l.dir, "c1"), Stdout: uri, Stderr: uri,
	}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l.mustStart("c1", "")
	if got := l.wait("c1", ""); got != 0 {
		t.Errorf("exit status %d", got)
	}
	if took := time.Since(began); took < delay/2 {
		t.Errorf("the exit was announced after %v, before the logger began to read", took)
	}
	l.mustDelete("c1", "")
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(content), "\n"); got != lines {
		t.Errorf("%d lines arrived, want %d", got, lines)
	}
}

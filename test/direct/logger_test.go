package direct

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// TestLoggersFromElsewhereAreRefused by a shim whose administrator says where they come from.
func TestLoggersFromElsewhereAreRefused(t *testing.T) {
	t.Setenv("HOLDFAST_LOGGER_DIRS", "/usr/bin")
	l := newLab(t, labConfig{bundle: sh("echo hello")})
	ours := filepath.Join(l.dir, "logger")
	if err := os.WriteFile(ours, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	create := func(uri string) error {
		_, err := l.Create(within(t), &task.CreateTaskRequest{
			ID: "c1", Bundle: filepath.Join(l.dir, "c1"), Stdout: uri,
		})
		return err
	}
	err := create("binary://" + ours)
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "HOLDFAST_LOGGER_DIRS") {
		t.Errorf("a logger from elsewhere: %v", err)
	}
	out := filepath.Join(l.dir, "out")
	if err := create("binary:///bin/sh?-c=" + url.QueryEscape("exec 5>&-; exec cat <&3 >"+out)); err != nil {
		t.Fatal(err)
	}
	l.mustStart("c1", "")
	l.wait("c1", "")
	l.mustDelete("c1", "")
	if got := l.read(out); got != "hello\n" {
		t.Errorf("the logger got %q", got)
	}
}

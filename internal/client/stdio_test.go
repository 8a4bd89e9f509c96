package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

// openStreams opens the client's side in a directory of its own.
func openStreams(t *testing.T, dir string, cfg client.IOConfig) *client.IO {
	t.Helper()
	s, err := client.OpenIO(dir, "p", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// openEnd opens the shim's side of a FIFO, which waits for the client's.
func openEnd(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStreamsPassBothWays(t *testing.T) {
	leak.Check(t)
	ctx := deadline(t, 10*time.Second)
	var tee bytes.Buffer
	s := openStreams(t, t.TempDir(), client.IOConfig{Stdin: true, Stdout: &tee})
	out, errs := openEnd(t, s.Stdout, os.O_WRONLY), openEnd(t, s.Stderr, os.O_WRONLY)
	in := openEnd(t, s.Stdin, os.O_RDONLY)

	go func() {
		s.In.Write([]byte("to the process")) // what is read below is the check
		s.In.Close()
	}()
	if data, err := io.ReadAll(in); err != nil || string(data) != "to the process" {
		t.Errorf("stdin %q, %v", data, err)
	}
	if _, err := out.WriteString("some out"); err != nil {
		t.Fatal(err)
	}
	if err := s.Out.WaitFor(ctx, "me out"); err != nil {
		t.Error(err)
	}
	out.Close()
	errs.Close()
	if err := s.Drained(ctx); err != nil {
		t.Error(err)
	}
	if s.Out.String() != "some out" || tee.String() != "some out" || s.Err.String() != "" {
		t.Errorf("stdout %q, copy %q, stderr %q", s.Out, &tee, s.Err)
	}
}

func TestStreamsAreOnlyThoseAskedFor(t *testing.T) {
	s := openStreams(t, t.TempDir(), client.IOConfig{Terminal: true})
	if s.Stdin != "" || s.In != nil || s.Stderr != "" || s.Err != nil || s.Stdout == "" || !s.Terminal {
		t.Errorf("%+v", s)
	}
}

func TestClosingDoesNotWaitForAShim(t *testing.T) {
	leak.Check(t)
	s, err := client.OpenIO(t.TempDir(), "p", client.IOConfig{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := s.Drained(deadline(t, time.Second)); err != nil {
		t.Error(err)
	}
}

func TestDrainedTellsWhichStreamIsOpen(t *testing.T) {
	s := openStreams(t, t.TempDir(), client.IOConfig{})
	openEnd(t, s.Stdout, os.O_WRONLY).Close()
	openEnd(t, s.Stderr, os.O_WRONLY)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := s.Drained(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "p-stderr") {
		t.Errorf("error %v", err)
	}
}

func TestWaitForEndsWithTheStream(t *testing.T) {
	ctx := deadline(t, 10*time.Second)
	s := openStreams(t, t.TempDir(), client.IOConfig{Terminal: true})
	out := openEnd(t, s.Stdout, os.O_WRONLY)
	if _, err := out.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if err := s.Out.WaitFor(ctx, "bc"); err != nil {
		t.Error(err)
	}
	if err := s.Out.WaitFor(ctx, "x"); !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), `"abc"`) {
		t.Errorf("error %v", err)
	}
}

func TestClientAttachesAgain(t *testing.T) {
	ctx := deadline(t, 10*time.Second)
	dir := t.TempDir()
	first := openStreams(t, dir, client.IOConfig{Terminal: true})
	shim := openEnd(t, first.Stdout, os.O_RDWR) // as shims do, so that they outlive their clients
	if _, err := shim.WriteString("one"); err != nil {
		t.Fatal(err)
	}
	if err := first.Out.WaitFor(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := shim.WriteString("two"); err != nil {
		t.Fatal(err)
	}
	second := openStreams(t, dir, client.IOConfig{Terminal: true})
	if err := second.Out.WaitFor(ctx, "two"); err != nil {
		t.Error(err)
	}
}

func TestLogKeepsWhatWasWrittenBeforeClose(t *testing.T) {
	leak.Check(t)
	bundle := t.TempDir()
	log, err := client.OpenLog(bundle, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := openEnd(t, filepath.Join(bundle, "log"), os.O_WRONLY)
	var want strings.Builder
	for range 200 {
		line := strings.Repeat("x", 100) + "\n"
		want.WriteString(line)
		if _, err := w.WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	w.Close() // no end of the stream: another shim may open it
	w = openEnd(t, filepath.Join(bundle, "log"), os.O_WRONLY)
	if _, err := w.WriteString("last\n"); err != nil {
		t.Fatal(err)
	}
	log.Close()
	if got := log.String(); got != want.String()+"last\n" {
		t.Errorf("%d bytes, want %d", len(got), want.Len()+5)
	}
}

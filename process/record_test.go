package process

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/reaper"
)

// A bundle that is used again still told of its first container's end, which the delete action
// reported as that of the second.
func TestNewContainerForgetsTheExitOfAnEarlierOne(t *testing.T) {
	f, err := newFixture(t, func(c *Config) {
		for _, name := range []string{"exit.json", "oom"} {
			if err := os.WriteFile(filepath.Join(c.Bundle, name), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"exit.json", "oom"} {
		if _, err := os.Stat(filepath.Join(f.Bundle(), name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.runtime.die("", 0)
	f.must(t, "")
}

// recorded returns what the bundle says of a process; nil if it says nothing.
func (f *fixture) recorded(t *testing.T, file string) *ExitRecord {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(f.Bundle(), file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	record := &ExitRecord{}
	if err := errors.Join(err, json.Unmarshal(content, record)); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return record
}

// The record of an exec is there when its waiters wake, until it is deleted. An exec has no name that
// would make it the record of the container.
func TestExitsOfExecsAreRecordedUntilTheyAreDeleted(t *testing.T) {
	f := mustStart(t)
	for _, id := range []string{"e", "json", "exit"} {
		f.addExec(t, id)
		if _, err := f.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		f.runtime.die(id, 4)
		exit, err := f.Wait(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.recorded(t, execExitFile(id)); got == nil || got.Status != 4 || got.Pid == 0 || !got.Timestamp.Equal(exit.At) {
			t.Errorf("the record of %s is %+v, it ended with %+v", id, got, exit)
		}
		if _, _, err := f.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if got := f.recorded(t, execExitFile(id)); got != nil {
			t.Errorf("the record of %s is left: %+v", id, got)
		}
	}
	if got := f.recorded(t, ExitFile); got != nil {
		t.Errorf("the container has exited: %+v", got)
	}
	f.runtime.die("", 0)
	f.must(t, "")
}

func TestCauseOfAnExecsEnd(t *testing.T) {
	kill := reaper.Exit{Status: 137, Signal: syscall.SIGKILL}
	for _, row := range []struct {
		want string
		exit reaper.Exit
		do   func(*Container, *execProcess)
	}{
		{"", reaper.Exit{Status: 137}, func(_ *Container, e *execProcess) { e.ask(syscall.SIGKILL) }},
		{causeRequest, kill, func(_ *Container, e *execProcess) { e.ask(syscall.SIGKILL) }},
		{causeOutside, kill, func(_ *Container, e *execProcess) { e.ask(syscall.SIGTERM) }},
		{causeInit, kill, func(c *Container, _ *execProcess) { c.gate.close() }},
		{causeOutside, reaper.Exit{Status: 143, Signal: syscall.SIGTERM}, func(c *Container, _ *execProcess) { c.gate.close() }},
	} {
		f := mustStart(t)
		f.addExec(t, "e")
		e, err := f.exec("e")
		if err != nil {
			t.Fatal(err)
		}
		row.do(f.Container, e)
		if got := f.causeOfExec(e, row.exit); got != row.want {
			t.Errorf("cause %q, want %q", got, row.want)
		}
		f.runtime.die("", 0)
		f.must(t, "")
	}
}

// The short way writes what the long one does.
func TestRecordIsEncodedAsAnyOther(t *testing.T) {
	at := time.Date(2026, 11, 26, 1, 2, 3, 4500, time.UTC)
	for _, r := range []ExitRecord{
		{}, {Timestamp: at}, {Timestamp: at, Pid: 12, Status: 255}, {Timestamp: at.Local(), Pid: 1<<22 - 1, Status: 137},
		{Timestamp: at, Pid: 12, Status: 137, Signal: 9, Cause: causeOOM}, {Timestamp: at, CoreDumped: true, OOMLimit: "/a \"b\""},
	} {
		got, err := r.encode()
		want, wantErr := json.Marshal(r)
		if string(got) != string(want) || err != nil || wantErr != nil {
			t.Errorf("%s, %v; want %s, %v", got, err, want, wantErr)
		}
	}
	if _, err := (ExitRecord{Timestamp: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}).encode(); err == nil {
		t.Error("a year that cannot be encoded was")
	}
}

package runc

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestKindsOfWhatRuntimesSay(t *testing.T) {
	kinds := map[string]error{
		"-": nil, "not-found": ErrNotFound, "not-running": ErrNotRunning, "exists": ErrExists,
		"paused": ErrPaused, "not-paused": ErrNotPaused,
	}
	content, err := os.ReadFile("testdata/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	used := map[*wording]bool{}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		want, ok := kinds[f[0]]
		if len(f) != 4 || !ok {
			t.Fatalf("bad line %q", line)
		}
		if got := classify(f[1], f[3]); !errors.Is(got, want) || want == nil && got != nil {
			t.Errorf("%s, %s: %q is %v, want %v", f[2], f[1], f[3], got, want)
		}
		for i := range wordings {
			if w := &wordings[i]; w.matches(f[1], strip(f[3])) {
				used[w] = true
			}
		}
	}
	for i := range wordings {
		if !used[&wordings[i]] {
			t.Errorf("no message in testdata has the words %+v", wordings[i])
		}
	}
}

// A program, path or hook can bring any words into the message of a command that runs it.
func TestForeignWordsDoNotCount(t *testing.T) {
	for _, message := range []string{
		`exec failed: unable to start container process: exec: "container does not exist": executable file not found in $PATH`,
		`runc create failed: unable to start container process: error running createRuntime hook #0: exit status 1, stdout: , stderr: container does not exist`,
		"exec failed: process already finished: no such process",
		"something\ncontainer not running\nmore",
	} {
		for _, verb := range []string{"create", "exec", "start", "restore"} {
			if got := classify(verb, message); got != nil {
				t.Errorf("%s: %q is %v", verb, message, got)
			}
		}
	}
}

func TestKindsAreErrdefsForContainerd(t *testing.T) {
	is := map[string]func(error) bool{
		"NotFound": errdefs.IsNotFound, "AlreadyExists": errdefs.IsAlreadyExists,
		"FailedPrecondition": errdefs.IsFailedPrecondition, "DeadlineExceeded": errdefs.IsDeadlineExceeded,
	}
	for _, row := range []struct {
		op   string
		kind error
		want string
	}{
		{"ps", ErrNotFound, "NotFound"},
		{"kill", ErrNotFound, "NotFound"},
		{"kill", ErrNotRunning, "NotFound"},
		{"exec", ErrNotRunning, "FailedPrecondition"},
		{"exec", ErrPaused, "FailedPrecondition"},
		{"resume", ErrNotPaused, "FailedPrecondition"},
		{"create", ErrExists, "AlreadyExists"},
		{"pause", ErrHung, "DeadlineExceeded"},
		{"pause", nil, ""},
	} {
		var err error = &Error{Op: row.op, Kind: row.kind, Message: "m"}
		if row.kind != nil && !errors.Is(err, row.kind) {
			t.Errorf("%s: %v is not %v", row.op, err, row.kind)
		}
		for name, holds := range is {
			if holds(err) != (name == row.want) {
				t.Errorf("%s, %v: %s is %v", row.op, row.kind, name, holds(err))
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, %v: is fs.ErrNotExist", row.op, row.kind)
		}
	}
}

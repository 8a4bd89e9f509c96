package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A container is left running, attached to, left, and attached to again.
func TestAttachLeaveAttach(t *testing.T) {
	needRoot(t)
	id := "attach-" + rand.Text()
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "-t", "--id", id)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := inTerminal(t, "attach", id)
	s.typeKeys("echo $((40+2)); stty size\r")
	s.see("42\r\n")
	s.see("24 80\r\n")
	s.typeKeys("kept=yes\r")
	s.typeKeys("\x10\x11")
	s.see("holdfast: detached")
	s.end(0)
	s = inTerminal(t, "attach", id)
	s.typeKeys("echo $kept; exit 5\r")
	s.see("yes\r\n")
	s.end(5)
	if r := runHoldfast(t, "", "attach", id); r.status != 5 || r.stderr != "" {
		t.Errorf("attached to what has ended: %+v", r)
	}
	for _, verb := range []string{"delete", "shutdown"} {
		if r := runHoldfast(t, "", verb, id); r.status != 0 {
			t.Errorf("%s: %+v", verb, r)
		}
	}
	leftNothing(t, tmp)
}

func TestOutputThatGoesNowhereIsNotAttachedTo(t *testing.T) {
	id := detached(t, "runc")
	if r := runHoldfast(t, "", "attach", id); r.status != exitFailed || !strings.Contains(r.stderr, "no FIFO of a client") {
		t.Errorf("%+v", r)
	}
}

func TestDetachKeysAreFoundAndNothingElseIsLost(t *testing.T) {
	for typed, want := range map[string]string{
		"abc":            "abc",
		"a\x10\x11b":     "a!",
		"\x10\x11":       "!",
		"a\x10b\x11c":    "a\x10b\x11c",
		"\x10\x10\x11":   "\x10!",
		"\x10\x10a\x10":  "\x10\x10a\x10",
		"\x11\x10":       "\x11\x10",
		"":               "",
		"xx\x10\x10\x10": "xx\x10\x10\x10",
	} {
		for name, from := range map[string]io.Reader{
			"at once": strings.NewReader(typed), "byte by byte": iotest.OneByteReader(strings.NewReader(typed)),
			"with the end": iotest.DataErrReader(strings.NewReader(typed)),
		} {
			var got bytes.Buffer
			_, err := io.Copy(&got, &keyReader{Reader: from})
			if errors.Is(err, errDetached) {
				got.WriteString("!")
			} else if err != nil {
				t.Error(err)
			}
			if got.String() != want {
				t.Errorf("%q, %s: %q, want %q", typed, name, &got, want)
			}
		}
	}
}

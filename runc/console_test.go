package runc

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestConsoleIsTheMasterOfTheProcessTerminal(t *testing.T) {
	for _, sent := range []string{"one", "two"} {
		r := fake(t, `{"*": {"console": "`+sent+`", "child": {"output": "ready\n"}}}`)
		before := descriptors(t)
		child, master, err := r.Create(t.Context(), CreateConfig{Console: true})
		if err != nil {
			t.Fatalf("%s: %v", sent, err)
		}
		endWith(t, child)
		if got := len(descriptors(t)) - len(before); got != 1 {
			t.Errorf("%s: %d descriptors came, want 1: %q", sent, got, descriptors(t))
		}
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLine(t, master, "ready")
		if err := master.Close(); err != nil {
			t.Error(err)
		}
		// The process has lost its terminal.
		if got := waitDone(t, child).Status; got != 128+1 {
			t.Errorf("%s: status %d, want that of SIGHUP", sent, got)
		}
	}
}

// wantLine reads a line from a terminal. The deadline works only if the file is on the poller.
func wantLine(t *testing.T, master *os.File, want string) {
	t.Helper()
	if err := master.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(master).ReadString('\n')
	if strings.TrimSpace(line) != want {
		t.Errorf("read %q, %v; want %q", line, err, want)
	}
}

func TestBadConsoleUndoesTheContainer(t *testing.T) {
	for sent, want := range map[string]string{
		"never": "without connecting",
		"none":  "sent no descriptor",
		"file":  "master is none",
	} {
		t.Run(sent, func(t *testing.T) {
			r := fake(t, `{"create": {"console": "`+sent+`"}}`)
			before := descriptors(t)
			child, master, err := r.Create(t.Context(), CreateConfig{Console: true})
			if err == nil || child != nil || master != nil || !strings.Contains(err.Error(), want) {
				t.Errorf("child %v, master %v, error %v; want %q", child, master, err, want)
			}
			if _, err := os.Stat(filepath.Join(r.Root, "c1")); err == nil {
				t.Error("the container is still there")
			}
			if diff := cmp.Diff(before, descriptors(t)); diff != "" {
				t.Errorf("descriptors (-before +after):\n%s", diff)
			}
			if got := offspring(t); len(got) != 0 {
				t.Errorf("processes %v are left", got)
			}
		})
	}
}

func TestConsoleSocketWorksInABundleWithALongName(t *testing.T) {
	r := fake(t, `{"*": {"child": {"output": "ready\n"}}}`)
	long := filepath.Join(r.Bundle, strings.Repeat("x", 120))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	deep := likeness(r)
	deep.Bundle = long
	child, master, err := deep.Create(t.Context(), CreateConfig{Console: true})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, child)
	defer master.Close()
	second, other, err := deep.Exec(t.Context(), ExecConfig{ID: strings.Repeat("e", 76), Console: true, Process: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, second)
	defer other.Close()
	rescript(t, deep, "{}")
	deleteAtEnd(t, deep)
}

func TestConsoleSocketReplacesADeadShimsAndIsPrivate(t *testing.T) {
	bundle := t.TempDir()
	for fd := range 200 {
		if err := os.WriteFile(filepath.Join(bundle, fmt.Sprintf("console-%d.sock", fd)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := listenConsole(bundle)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(bundle, s.name)
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	s.close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket was left")
	}
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// session is holdfast in a terminal of its own: the test sits at its keyboard.
type session struct {
	t      *testing.T
	master *os.File // keyboard and screen
	tty    *os.File
	cmd    *exec.Cmd
	tmp    string
	saved  unix.Termios
	screen string
}

func inTerminal(t *testing.T, args ...string) *session {
	t.Helper()
	needRoot(t)
	s := &session{t: t}
	s.open()
	saved, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	s.saved = *saved
	s.resize(80, 24)
	s.cmd, s.tmp = holdfast(t, deadline(t, runLimit), args...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.tty, s.tty, s.tty
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// open opens a new pseudo-terminal (pts(4)).
func (s *session) open() {
	s.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.master = master
	s.t.Cleanup(func() { master.Close() })
	conn, err := master.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	var number int
	err = conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.tty.Close() })
}

func (s *session) resize(width, height uint16) {
	s.t.Helper()
	ws := &unix.Winsize{Col: width, Row: height}
	if err := unix.IoctlSetWinsize(int(s.tty.Fd()), unix.TIOCSWINSZ, ws); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) typeKeys(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// see waits until text is on the screen, after what was seen before.
func (s *session) see(text string) {
	s.t.Helper()
	if err := s.master.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	before, after, found := strings.Cut(s.screen, text)
	if found {
		s.screen = after
		return
	}
	got, err := readUntil(s.master, text)
	s.screen = before + got
	_, after, found = strings.Cut(s.screen, text)
	if !found {
		s.t.Fatalf("%q is not on the screen: %v; %q", text, err, s.screen)
	}
	s.screen = after
}

// end waits for holdfast and verifies that the terminal is as it was and that nothing is left.
func (s *session) end(status int) {
	s.t.Helper()
	s.cmd.Wait() // the status is looked at
	if got := s.cmd.ProcessState.ExitCode(); got != status {
		s.t.Errorf("status %d, want %d", got, status)
	}
	now, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(s.saved, *now); diff != "" {
		s.t.Errorf("the terminal is not as it was: %s", diff)
	}
	leftNothing(s.t, s.tmp)
}

func TestShellHasTheTerminal(t *testing.T) {
	s := inTerminal(t, "run", "-t")
	s.see("$ ")
	s.typeKeys("stty size; tty\r")
	s.see("\r\n24 80\r\n/dev/pts/0\r\n")
	s.typeKeys("exit 3\r")
	s.see("exit status 3")
	s.end(3)
}

func TestWindowSizeIsPassedOn(t *testing.T) {
	s := inTerminal(t, "run", "-t", newBundle(t, `trap 'stty size' WINCH; echo ready; while read -r x; do :; done; exit 0`, nil))
	s.see("ready\r\n")
	s.resize(101, 37)
	// The signal interrupts the shell's read; dash runs the trap and goes on once a line comes.
	s.typeKeys("\r")
	s.see("37 101\r\n")
	s.typeKeys("\x04")
	s.see("exit status 0")
	s.end(0)
}

func TestInterruptGoesToTheProcess(t *testing.T) {
	s := inTerminal(t, "run", "-t", newBundle(t, "trap 'exit 4' INT; echo ready; while :; do sleep 0.1; done", nil))
	s.see("ready\r\n")
	s.typeKeys("\x03")
	s.see("exit status 4")
	s.end(4)
}

func TestKilledWithTerminalRestoresIt(t *testing.T) {
	s := inTerminal(t, "run", "-t")
	s.see("$ ")
	if raw, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS); err != nil || raw.Lflag&unix.ICANON != 0 {
		t.Errorf("the terminal is not in raw mode: %+v, %v", raw, err)
	}
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.see("exit status 137")
	s.end(137)
}

func TestClosedWindowEndsTheContainer(t *testing.T) {
	s := inTerminal(t, "run", "-t")
	s.see("$ ")
	s.master.Close() // the kernel sends SIGHUP
	s.cmd.Wait()     // the status is looked at
	if got := s.cmd.ProcessState.ExitCode(); got <= 0 {
		t.Errorf("status %d", got)
	}
	leftNothing(t, s.tmp)
}

func TestDeadShimRestoresTheTerminal(t *testing.T) {
	s := inTerminal(t, "run", "-t")
	s.see("$ ")
	if err := unix.Kill(shimIn(t, s.tmp), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.see("holdfast run: ")
	s.end(exitFailed)
}

func TestBundleDecidesAboutTheTerminal(t *testing.T) {
	bundle := newBundle(t, "test -t 0 && test -t 1 && echo terminal", func(c *client.BundleConfig) { c.Terminal = true })
	s := inTerminal(t, "run", bundle)
	s.see("terminal\r\n")
	s.see("exit status 0")
	s.end(0)

	bundle = newBundle(t, "test -t 0 || exit 5; stty size", nil)
	before := contents(t, bundle)
	s = inTerminal(t, "run", bundle)
	s.see("exit status 5")
	s.end(5)

	s = inTerminal(t, "run", "-t", bundle)
	s.see("24 80\r\n")
	s.see("exit status 0")
	s.end(0)
	if diff := cmp.Diff(before, contents(t, bundle)); diff != "" {
		t.Errorf("the bundle has changed: %s", diff)
	}
}

// A terminal for the process does not need one of ours.
func TestTerminalWithoutOurOwn(t *testing.T) {
	needRoot(t)
	got := runHoldfast(t, "echo typed; exit 6\n", "run", "-t")
	if got.status != 6 || !strings.Contains(got.stdout, "typed\r\n") {
		t.Errorf("%+v", got)
	}
}

func TestExecHasTheTerminal(t *testing.T) {
	needRoot(t)
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--id", "c1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := addressIn(t, out)
	s := inTerminal(t, "exec", "-t", "--address", address, "c1", "sh", "-c", "stty size; read -r x; exit $x")
	s.see("24 80\r\n")
	s.typeKeys("9\r")
	s.end(9)
	for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
		if got := runHoldfast(t, "", verb, "c1", "--address", address); got.status != 0 {
			t.Errorf("%s: %+v", verb, got)
		}
	}
	leftNothing(t, tmp)
}

func TestSignalKillsAnExec(t *testing.T) {
	needRoot(t)
	command := []string{"sh", "-c", "echo running; exec sleep 1000"}
	t.Run("once it is started", func(t *testing.T) {
		signalKillsAnExec(t, "runc", func(args ...string) (*exec.Cmd, string, *bytes.Buffer) {
			return started(t, append(args, command...)...)
		})
	})
	// The process runs, and the runtime has not ended: so the shim does not know of it yet.
	t.Run("while it is being started", func(t *testing.T) {
		slow, begun := filepath.Join(t.TempDir(), "slow"), filepath.Join(t.TempDir(), "begun")
		script := "#!/bin/sh\nrunc \"$@\" || exit\ncase \" $* \" in *\" exec \"*) >" + begun + "; sleep 1;; esac\n"
		if err := os.WriteFile(slow, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		signalKillsAnExec(t, slow, func(args ...string) (*exec.Cmd, string, *bytes.Buffer) {
			cmd, own := holdfast(t, deadline(t, runLimit), append(args, command...)...)
			stderr := &bytes.Buffer{}
			cmd.Stderr = stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(runLimit); ; time.Sleep(time.Millisecond) {
				if _, err := os.Stat(begun); err == nil {
					return cmd, own, stderr
				}
				if time.Now().After(end) {
					t.Fatal("the exec does not begin")
				}
			}
		})
	})
}

func signalKillsAnExec(t *testing.T, runtime string, start func(args ...string) (*exec.Cmd, string, *bytes.Buffer)) {
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--runtime", runtime, "--id", "c1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := addressIn(t, out)
	running, own, stderr := start("exec", "--address", address, "c1")
	if err := running.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	running.Wait() // the status is looked at
	if got := running.ProcessState.ExitCode(); got != 137 {
		t.Errorf("status %d: %s", got, stderr)
	}
	leftNothing(t, own)
	got := runHoldfast(t, "", "pids", "c1", "--address", address)
	if n := strings.Count(got.stdout, `"pid"`); n != 1 {
		t.Errorf("%d processes are left, want init alone: %s", n, got.stdout)
	}
	for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
		if got := runHoldfast(t, "", verb, "c1", "--address", address); got.status != 0 {
			t.Error(fmt.Sprint(verb, ": ", got))
		}
	}
	leftNothing(t, tmp)
}

// What is shown again and again ends with Ctrl-C, with success, and the terminal is as it was.
func TestLiveViewsEndWithCtrlC(t *testing.T) {
	id := detached(t, "runc")
	for _, row := range []struct {
		args []string
		want string // twice
	}{
		{[]string{"stats", "--watch", "--interval", "50ms", id}, clearScreen + "NAMESPACE"},
		{[]string{"top", "--interval", "50ms", id}, clearScreen + "PID"},
		{[]string{"events", "--follow", id}, "/tasks/"},
	} {
		t.Run(row.args[0], func(t *testing.T) {
			s := inTerminal(t, row.args...)
			s.see(row.want)
			s.see(row.want)
			s.typeKeys("\x03")
			s.end(0)
		})
	}
}

func TestPanicRestoresTheTerminal(t *testing.T) {
	s := &session{t: t}
	s.open()
	before, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rawConsole(s.tty)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if got := recover(); got != "a bug" {
				t.Errorf("the panic has become %v", got)
			}
		}()
		defer c.restoreInPanic()
		panic("a bug")
	}()
	after, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("the terminal is not as it was: %v, %s", err, diff)
	}
}

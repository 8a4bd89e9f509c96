package reaper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// The test binary is also the runtime: it leaves a child behind that ends with a given status
// and, unlike a shell, never waits for it.
func TestMain(m *testing.M) {
	switch os.Getenv("REAPER_TEST_ROLE") {
	case "runtime":
		leaveChild()
	case "nohup":
		hangUp()
	case "child":
		status, _ := strconv.Atoi(os.Getenv("REAPER_TEST_STATUS"))
		os.Exit(status)
	}
	if err := Init(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hangUp prints how a child ends that is sent SIGHUP.
func hangUp() {
	if err := Init(); err != nil {
		os.Exit(113)
	}
	c, err := Start(&Command{Path: "sleep", Args: []string{"5"}})
	if err != nil {
		os.Exit(114)
	}
	if err := c.Signal(syscall.SIGHUP); err != nil {
		os.Exit(115)
	}
	<-c.Done()
	fmt.Print(c.Exit().Status)
	os.Exit(0)
}

func TestChildrenDoNotIgnoreWhatWeWereToldToIgnore(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Start(&Command{
		Path: "/bin/sh", Args: []string{"-c", "trap '' HUP; exec " + self}, Files: []*os.File{nil, w},
		Env: append(os.Environ(), "REAPER_TEST_ROLE=nohup", "GORACE=atexit_sleep_ms=0"),
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if waitDone(t, c); string(out) != "129" {
		t.Errorf("the child ended with %s, want 129, that of SIGHUP", out)
	}
}

func leaveChild() {
	self, _ := os.Executable()
	if err := os.Setenv("REAPER_TEST_ROLE", "child"); err != nil { // a second value would be ignored
		os.Exit(112)
	}
	pid, err := syscall.ForkExec(self, []string{self}, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 0, 0},
	})
	if err != nil {
		os.Exit(111)
	}
	if os.Getenv("REAPER_TEST_LATE") != "" {
		var info [128]byte // siginfo; WNOWAIT leaves the zombie to the subreaper
		const waitPid, exited, noWait = 1, 4, 0x01000000
		syscall.RawSyscall6(syscall.SYS_WAITID, waitPid, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|noWait, 0, 0)
	}
	fmt.Print(pid)
	os.Exit(0)
}

// runRuntime starts the runtime, waits for it and returns the pid that it names.
func runRuntime(status int, late bool) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	env := append(os.Environ(), "REAPER_TEST_ROLE=runtime", "GORACE=atexit_sleep_ms=0",
		"REAPER_TEST_STATUS="+strconv.Itoa(status))
	if late {
		env = append(env, "REAPER_TEST_LATE=1")
	}
	c, err := Start(&Command{Path: self, Env: env, Files: []*os.File{nil, w}})
	w.Close()
	if err != nil {
		return 0, err
	}
	out, err := io.ReadAll(r)
	if err != nil {
		return 0, err
	}
	<-c.Done()
	if got := c.Exit().Status; got != 0 {
		return 0, fmt.Errorf("runtime ended with status %d", got)
	}
	return strconv.Atoi(string(out))
}

func waitDone(t *testing.T, c *Child) Exit {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatalf("pid %d was not reaped", c.Pid())
	}
	return c.Exit()
}

func TestNoExitIsLostOrMixedUp(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 12 {
				want := (worker*12 + i) % 250
				c, err := Adopt(func() (int, error) { return runRuntime(want, i%2 == 0) })
				if err != nil {
					t.Error(err)
					return
				}
				if got := waitDone(t, c).Status; got != want {
					t.Errorf("status %d, want %d", got, want)
				}
			}
		})
	}
	wg.Wait()
	if n := len(table.children); n != 0 {
		t.Errorf("%d children are still in the table", n)
	}
}

func TestChildThatDiedBeforeItsNameIsKnownKeepsItsExit(t *testing.T) {
	c, err := Adopt(func() (int, error) { return runRuntime(42, true) })
	if err != nil {
		t.Fatal(err)
	}
	if got := waitDone(t, c).Status; got != 42 {
		t.Errorf("status %d, want 42", got)
	}
}

func TestNamelessChildrenWaitForTheEndOfTheBirthAndAreThenReaped(t *testing.T) {
	table.mu.Lock()
	usual := table.patience
	table.patience = time.Hour
	table.mu.Unlock()
	defer func() {
		table.mu.Lock()
		defer table.mu.Unlock()
		table.patience = usual
	}()
	var pid int
	before := Orphans()
	_, err := Adopt(func() (int, error) {
		var err error
		if pid, err = runRuntime(1, true); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("orphan reaped during the birth: %v", err)
		}
		return 0, io.ErrUnexpectedEOF
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want the birth's own", err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("orphan is still there: %v", err)
	}
	if Orphans() == before {
		t.Error("orphan was not counted")
	}
}

// A zombie keeps the init process of its pid namespace from ending, and births may follow one another
// for ever.
func TestNamelessChildrenAreReapedThoughABirthGoesOn(t *testing.T) {
	before := Orphans()
	c, err := Adopt(func() (int, error) {
		pid, err := runRuntime(43, true)
		if err != nil {
			return 0, err
		}
		for end := time.Now().Add(10 * time.Second); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Error("the orphan is still there")
				break
			}
		}
		return pid, nil // only now we know its name
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := waitDone(t, c).Status; got != 43 {
		t.Errorf("status %d, want 43", got)
	}
	if now := Orphans(); now != before {
		t.Errorf("%d orphans, and %d before: it was none", now, before)
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.births) > 0 || len(table.unclaimed) > 0 {
		t.Errorf("remembered: births %v, exits %v", table.births, table.unclaimed)
	}
}

// An exit is kept no longer than there are births that may claim it.
func TestExitsThatNobodyClaimsAreForgotten(t *testing.T) {
	first := table.begin()
	pid, err := runRuntime(44, true)
	if err != nil {
		t.Fatal(err)
	}
	kept := func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		_, kept := table.unclaimed[pid]
		return kept
	}
	for end := time.Now().Add(10 * time.Second); !kept(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its exit is not kept")
		}
	}
	second := table.begin()
	table.end(first)
	if kept() {
		t.Error("its exit is kept for a birth that had not begun")
	}
	table.end(second)
}

// Their signals have merged into one, or were spent while they had to wait.
func TestAllWhoDiedDuringABirthAreReapedAtItsEnd(t *testing.T) {
	var pids []int
	_, err := Adopt(func() (int, error) {
		for range 5 {
			pid, err := runRuntime(1, true)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return 0, io.ErrUnexpectedEOF
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want the birth's own", err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("orphan %d is still there: %v", pid, err)
		}
	}
}

func TestAdoptRefusesWhatIsNotOurs(t *testing.T) {
	c, err := Start(&Command{Path: "sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Signal(syscall.SIGKILL); waitDone(t, c) }()
	for pid, want := range map[int]string{
		0: "no process of ours", 1: "no process of ours", os.Getppid(): "not a child", c.Pid(): "already has an owner",
	} {
		_, err := Adopt(func() (int, error) { return pid, nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pid %d: error %v, want one with %q", pid, err, want)
		}
	}
}

func TestSignalReachesTheLivingOnly(t *testing.T) {
	c, err := Start(&Command{Path: "sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(0); err != nil {
		t.Errorf("probe: %v", err)
	}
	if err := c.SignalGroup(syscall.SIGKILL); err != nil {
		t.Errorf("kill: %v", err)
	}
	if exit := waitDone(t, c); exit.Status != 137 || exit.Signal != syscall.SIGKILL || exit.At.IsZero() {
		t.Errorf("exit %+v", exit)
	}
	if err := c.Signal(0); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("probe of the dead: %v", err)
	}
}

func TestStartTellsWhyItCannot(t *testing.T) {
	for path, want := range map[string]string{
		"no-runc":     `exec: "no-runc": executable file not found in $PATH`,
		"/no/runc":    `exec: "/no/runc": no such file or directory`,
		"/etc/passwd": `exec: "/etc/passwd": permission denied`,
	} {
		if _, err := Start(&Command{Path: path}); err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// A program is looked for where it was, so that all commands of a shim are the same one's, and anew once it has gone.
func TestProgramIsFoundWhereItWas(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	t.Setenv("PATH", first+":"+second)
	name := "found-where-it-was"
	is := func(want string) {
		t.Helper()
		if got, err := LookPath(name); err != nil || got != want {
			t.Errorf("found at %q, %v; want %s", got, err, want)
		}
	}
	put := func(dir string) (path string) {
		t.Helper()
		path = filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := put(second)
	is(old)
	next := put(first)
	is(old)
	if err := os.Chmod(old, 0o600); err != nil {
		t.Fatal(err)
	}
	is(next)
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	if got, err := LookPath(name); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("found at %q, %v; what is there may not be executed", got, err)
	}
}

func TestStartHandsOverNothingButFiles(t *testing.T) {
	stray, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Start(&Command{Path: "/bin/ls", Args: []string{"/proc/self/fd"}, Files: []*os.File{nil, w}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	waitDone(t, c)
	if got := strings.Fields(string(out)); len(got) != 4 { // 0, 1, 2 and the directory that ls reads
		t.Errorf("descriptors %v", got)
	}
}

package proc

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStatIsReadAroundOddNames(t *testing.T) {
	const rest = " 10 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 9 9"
	for text, want := range map[string]Process{
		"12 (runc) S 1 12" + rest:    {Pid: 12, Parent: 1, Group: 12, Session: 10, Name: "runc", State: "S", flags: 4194560, start: "4711"},
		"12 (a) b (c) D 3 10" + rest: {Pid: 12, Parent: 3, Group: 10, Session: 10, Name: "a) b (c", State: "D", flags: 4194560, start: "4711"},
	} {
		if got, ok := parse([]byte(text)); !ok || got != want {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "12", "12 (x", ")12 (", "12 (x) S 1 1", "12 (x) S 1 y" + rest, "x (x) S 1 1" + rest, "12 (x) S - 1" + rest} {
		if got, ok := parse([]byte(text)); ok {
			t.Errorf("%q was taken for %+v", text, got)
		}
	}
	if p, ok := Read(os.Getpid()); !ok || p.Pid != os.Getpid() || p.Parent != os.Getppid() {
		t.Errorf("we are %+v, %v", p, ok)
	}
	stack := "[<0>] do_wait+0x5b/0xf0\n[<0>] kernel_wait4+0xa9/0x150\n[<0>] a+1\n[<0>] b+1\n[<0>] c+1\n[<0>] d+1\n[<0>] e+1\n"
	if got := stackNames([]byte(stack)); got != "do_wait < kernel_wait4 < a < b < c < d" {
		t.Errorf("stack %q", got)
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a) b (c) D 1 10 10 0"), []byte("[<0>] do_wait+0x5b/0xf0\n"))
	f.Fuzz(func(_ *testing.T, stat, stack []byte) {
		parse(stat)
		stackNames(stack)
	})
}

// script runs a shell script in a session of its own, whose words are pids, and returns these after
// its own.
func script(t *testing.T, text string, words int) []int {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	pids := []int{cmd.Process.Pid}
	var said []byte
	for buf := make([]byte, 100); len(strings.Fields(string(said))) < words; {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", said, err)
		}
		said = append(said, buf[:n]...)
	}
	for _, word := range strings.Fields(string(said)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func pidsOf(processes []Process) []int {
	var pids []int
	for _, p := range processes {
		pids = append(pids, p.Pid)
	}
	slices.Sort(pids)
	return pids
}

func alive(pid int) bool {
	p, ok := Read(pid)
	return ok && !p.Dead()
}

// named waits until a process runs a program: one that has just been forked may be without its traps
// and its name.
func named(t *testing.T, pid int, name string) Process {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if p, ok := Read(pid); ok && p.Name == name {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("%d is not %s", pid, name)
		}
	}
}

// gone waits for the end of processes that are not our children.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); slices.ContainsFunc(pids, alive); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not all of %v end", pids)
		}
	}
}

// A tree holds the children of children, those whose parents have ended, and those that have begun
// process groups or sessions while their parents are there.
func TestTreeIsWhole(t *testing.T) {
	other := script(t, "echo $$; exec sleep 1000", 1)
	pids := script(t, `sleep 1000 & echo $!
		(sleep 1000 & echo $!; exec sleep 0)
		sh -c 'sleep 1000 & echo $!; wait' & echo $!
		setsid sh -c 'echo $$; exec sleep 1000' &
		exec sleep 1000`, 5)
	want := slices.Clone(pids)
	slices.Sort(want)
	var got []int
	for end := time.Now().Add(5 * time.Second); !slices.Equal(got, want); time.Sleep(time.Millisecond) {
		if got = pidsOf(Tree(pids[0])); time.Now().After(end) {
			t.Fatalf("the tree has %v, want %v", got, want)
		}
	}
	if first := Tree(pids[0])[0].Pid; first != pids[0] {
		t.Errorf("the first is %d, not %d", first, pids[0])
	}
	if n := SignalAll(func() []Process { return Tree(pids[0]) }, syscall.SIGKILL); n < len(want) {
		t.Errorf("%d of %d were killed", n, len(want))
	}
	gone(t, want)
	if !alive(other[0]) {
		t.Error("a stranger has died")
	}
}

// Those who fork as fast as they can are all killed.
func TestForkersDoNotGetAway(t *testing.T) {
	const forker = `f() { sleep 1000 & }; i=0; while [ $i -lt 300 ]; do f; i=$((i+1)); done; wait`
	pids := script(t, "echo $$; "+forker, 1)
	leader := pids[0]
	time.Sleep(5 * time.Millisecond) // somewhere in the middle
	SignalAll(func() []Process { return Tree(leader) }, syscall.SIGKILL)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := slices.DeleteFunc(Tree(leader), Process.Dead)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d are left", len(left))
		}
	}
}

func TestOthersAreToldToo(t *testing.T) {
	pids := script(t, "trap 'exit 0' TERM; sleep 1000 & echo $!; wait", 1)
	named(t, pids[1], "sleep")
	if n := SignalAll(func() []Process { return Tree(pids[0]) }, syscall.SIGTERM); n != 2 {
		t.Errorf("%d were signalled", n)
	}
	gone(t, pids)
}

// A pid that means somebody else by now is not signalled: forced by its start time, which differs.
func TestStrangersAreNotSignalled(t *testing.T) {
	pids := script(t, "echo $$; exec sleep 1000", 1)
	p := named(t, pids[0], "sleep")
	p.start += "1"
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v", err)
	}
	if !alive(pids[0]) {
		t.Error("the stranger has died")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		text := Describe(Family(pids[0]))
		if strings.Contains(text, "(sleep) in state S at ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("described as %s", text)
		}
	}
}

func TestDoomedHasASIGKILLOrHasEnded(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, ok := Read(cmd.Process.Pid)
	if !ok || p.Doomed() {
		t.Errorf("a process that lives: found %v, doomed %v", ok, p.Doomed())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !p.Doomed() {
		t.Error("killed, and not doomed")
	}
	_ = cmd.Wait() // by SIGKILL
	if !p.Doomed() {
		t.Error("gone, and not doomed")
	}
}

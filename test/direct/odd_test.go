package direct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

// The init process may be dead before create returns: issue 9103, and the deadlock of T18.
func TestInitThatIsDeadBeforeCreateReturns(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	for i := range 10 {
		id := fmt.Sprintf("c%d", i+1)
		if i > 0 {
			l.bundle(id, sleeper())
		}
		l.script(id, map[string]step{"create": {"child": map[string]any{"dead": true, "life": "0s", "exit": 3}}})
		l.mustCreate(id, nil)
		if got := l.wait(id, ""); got != 3 {
			t.Errorf("exit status %d, want 3", got)
		}
		_, err := l.start(id, "")
		is(t, "start of the dead", err, errdefs.ErrFailedPrecondition)
		if got := l.mustDelete(id, ""); got.GetExitStatus() != 3 {
			t.Errorf("delete answers %v", got)
		}
		l.event(client.Deletes(id, ""))
		if n := count(l.Events.All(), client.Exits(id, "")); n != 1 {
			t.Errorf("%d exits", n)
		}
	}
}

// The same for execs, and for one that dies while its start still hangs.
func TestExecThatIsDeadBeforeItsStartReturns(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	for i := range 10 {
		e := fmt.Sprintf("e%d", i)
		dead := step{"child": map[string]any{"dead": true, "life": "0s", "exit": i}}
		if i%2 == 1 {
			dead["sleep"] = "20ms"
		}
		l.script("c1", map[string]step{"exec": dead})
		l.runExec("c1", e, sleeper())
		if got := l.wait("c1", e); got != i {
			t.Errorf("%s ended with %d, want %d", e, got, i)
		}
		l.mustDelete("c1", e)
		l.event(client.Exits("c1", e))
	}
	l.script("c1", nil)
	l.finish("c1")
}

// A runtime that lies about the pid must not make us take, let alone kill, what is not its child.
func TestPidThatIsNotTheRuntimesToGive(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	c1 := l.run("c1", nil)
	for what, pid := range map[string]int{
		"process 1": 1, "the shim": l.pid(), "the test": os.Getpid(), "another container": c1, "nobody": 1<<22 - 2,
		"group": -c1, "none": 0,
	} {
		lie := step{"pidFile": strconv.Itoa(pid)}
		l.bundle("liar", sleeper())
		l.script("liar", map[string]step{"create": lie})
		_, err := l.create("liar", nil)
		if err == nil {
			t.Errorf("created with the pid of %s", what)
			l.finish("liar")
		}
		l.script("c1", map[string]step{"exec": lie})
		l.mustExec("c1", what, sleeper(), nil)
		_, err2 := l.start("c1", what)
		if err2 == nil {
			t.Errorf("exec started with the pid of %s", what)
		}
		t.Logf("%s: create: %v", what, err)
		t.Logf("%s: exec: %v", what, err2)
		l.ids = l.ids[:1]
		l.unharmed(what, c1)
	}
	l.script("c1", nil)
	l.finish("c1")
}

// What a runtime does with the console socket may be anything; a container without its terminal
// is not created, and what is sent beside it is not kept.
func TestConsoleThatDoesNotComeAsItShould(t *testing.T) {
	cfg := sleeper()
	cfg.Terminal = true
	l := newLab(t, labConfig{options: fake(), bundle: cfg})
	l.run("c1", l.io("c1", client.IOConfig{Terminal: true}))
	l.finish("c1") // what is there once is there now
	for what, good := range map[string]bool{"one": true, "two": true, "none": false, "file": false, "never": false} {
		before := l.census()
		l.script("c1", map[string]step{"create": {"console": what}})
		began := time.Now()
		_, err := l.create("c1", l.io(what, client.IOConfig{Terminal: true}))
		t.Logf("%s: after %v: %v", what, time.Since(began).Round(time.Millisecond), err)
		if good != (err == nil) {
			t.Errorf("%s: error %v", what, err)
		}
		if err == nil {
			if now := l.census(); now.Ptmx != 1 {
				t.Errorf("%s: %d ptmx, want 1: %v", what, now.Ptmx, now.Links)
			}
			l.mustStart("c1", "")
			l.finish("c1")
		}
		l.eventually("descriptors are closed after "+what, func() bool { return l.census().Descriptors() <= before.Descriptors() })
	}
}

// Logs may hold anything, too.
func TestLogsThatAreGarbage(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.run("c1", nil)
	for i, c := range []struct {
		log  []string
		want string
	}{
		{[]string{"not json", "{", "[]", `"x"`, "\x00\x01", `{"level":5}`}, "plain"},
		{[]string{`{"level":"error","msg":"first"}{"level":"error","msg":"last"}`, "junk"}, "last"},
		{[]string{`{"level":"warning","msg":"harmless"}`}, "plain"},
		{[]string{strings.Repeat("x", 1<<20)}, "plain"},
		{[]string{`{"level":"error","msg":""}`}, "plain"},
	} {
		l.script("c1", map[string]step{"pause": {"log": c.log, "stderr": "plain\n", "exit": 1}})
		err := l.tryPause("c1")
		if err == nil || err.Error() != "OCI runtime pause failed: "+c.want {
			t.Errorf("case %d: %v, want %s", i, err, c.want)
		}
	}
	l.script("c1", nil)
	l.finish("c1")
}

// A runtime command that forks something that keeps its output open does not hold us up.
func TestHookThatKeepsTheRuntimesOutputOpen(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.script("c1", map[string]step{"*": {"hook": "20s"}, "delete": {"hook": "20s", "stderr": "x\n"}})
	began := time.Now()
	l.run("c1", nil)
	l.finish("c1")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a life took %v", took)
	}
	// The holders are children of the shim now, and end with it or later: not ours to leave behind.
	l.endChildren(l.pid())
}

// endChildren ends the processes that a test has left to the shim.
func (l *lab) endChildren(shim int) {
	l.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", shim))
	if err != nil {
		l.t.Fatal(err)
	}
	ended := 0
	for _, path := range paths {
		children, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			l.t.Fatal(err)
		}
		for _, field := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(field); err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
				ended++
			}
		}
	}
	if ended == 0 {
		l.t.Error("the runtime has left no process: the test tests nothing")
	}
}

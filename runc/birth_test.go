package runc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestCreatedProcessIsOursAndWaitsForStart(t *testing.T) {
	r := fake(t, `{"create": {"child": {"life": "10ms", "exit": 3}}}`)
	child := create(t, r)
	if pid, err := readPid(filepath.Join(r.Bundle, "init.pid")); err != nil || pid != child.Pid() {
		t.Errorf("init.pid holds %d, %v; want %d", pid, err, child.Pid())
	}
	select {
	case <-child.Done():
		t.Fatal("it did not wait for start")
	default:
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := waitDone(t, child).Status; got != 3 {
		t.Errorf("status %d, want 3", got)
	}
}

func TestProcessThatDiedBeforeItsPidWasReadKeepsItsExit(t *testing.T) {
	r := fake(t, `{"*": {"child": {"life": "0s", "exit": 4, "dead": true}}, "exec/e2": {"child": {"signal": 6, "life": "0s", "dead": true}}}`)
	if got := waitDone(t, create(t, r)).Status; got != 4 {
		t.Errorf("init: status %d, want 4", got)
	}
	rescript(t, r, `{}`)
	if err := r.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	rescript(t, r, `{"exec": {"child": {"life": "0s", "exit": 5, "dead": true}}, "exec/e2": {"child": {"signal": 6, "life": "0s", "dead": true}}}`)
	create(t, r)
	for id, want := range map[string]int{"e1": 5, "e2": 128 + 6} {
		child, _, err := r.Exec(t.Context(), ExecConfig{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if got := waitDone(t, child).Status; got != want {
			t.Errorf("%s: status %d, want %d", id, got, want)
		}
	}
}

func TestStreamsAreThoseOfTheProcess(t *testing.T) {
	r := fake(t, `{"create": {"child": {"output": "hello\n", "echo": true}}}`)
	in, out := pipe(t), pipe(t)
	child, _, err := r.Create(t.Context(), CreateConfig{Streams: Streams{Stdin: in.r, Stdout: out.w}})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, child)
	in.r.Close()
	out.w.Close()
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := in.w.WriteString("ping\n"); err != nil {
		t.Fatal(err)
	}
	in.w.Close()
	lines := bufio.NewScanner(out.r)
	for _, want := range []string{"hello", "ping"} {
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("read %q, %v; want %q", lines.Text(), lines.Err(), want)
		}
	}
	if lines.Scan() {
		t.Errorf("read %q after the end", lines.Text())
	}
	if got := waitDone(t, child).Status; got != 0 {
		t.Errorf("status %d", got)
	}
}

type ends struct{ r, w *os.File }

func pipe(t *testing.T) ends {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return ends{r, w}
}

// A runtime that ends well but does not tell us a pid which is our child's has made a container
// that nobody could end. It has to go, with its process.
func TestUselessPidFileUndoesTheContainer(t *testing.T) {
	for what, want := range map[string]string{
		"missing":                        "wrote no pid file",
		"late":                           "wrote no pid file",
		"garbage":                        "is not a pid",
		"1":                              "no process of ours",
		fmt.Sprint(os.Getppid()):         "not a child of the shim",
		fmt.Sprint(os.Getpid()):          "not a child of the shim",
		"-5":                             "is not a pid",
		strings.Repeat("1", 100):         "more than 32 bytes",
		"7\n7":                           "is not a pid",
		fmt.Sprint(1 << 22):              "not a child of the shim",
		fmt.Sprint(uint64(1<<32) + 4711): "is not a pid",
	} {
		for _, verb := range []string{"create", "restore"} {
			r := fake(t, fmt.Sprintf(`{"*": {"pidFile": %q}, "delete": {"record": "calls"}}`, what))
			var err error
			if verb == "create" {
				_, _, err = r.Create(t.Context(), CreateConfig{})
			} else {
				_, _, err = r.Restore(t.Context(), RestoreConfig{Image: "/img"})
			}
			if err == nil || !strings.HasPrefix(err.Error(), "OCI runtime "+verb+" failed: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, pid file %q: error %v, want %q", verb, what, err, want)
			}
			if calls := recorded(t, r); len(calls) != 1 || calls[0].Args[7] != "--force" {
				t.Errorf("%s, pid file %q: deletions %v", verb, what, calls)
			}
			if _, err := os.Stat(filepath.Join(r.Root, "c1")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, pid file %q: the container is still there: %v", verb, what, err)
			}
			if _, err := os.Stat(filepath.Join(r.Bundle, "init.pid")); what != "late" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, pid file %q: it is still there: %v", verb, what, err)
			}
		}
	}
}

func TestFailedCreateLeavesAnExistingContainerAlone(t *testing.T) {
	r := fake(t, `{"delete": {"record": "calls"}}`)
	child := create(t, r)
	_, _, err := r.Create(t.Context(), CreateConfig{})
	if !errors.Is(err, ErrExists) || !errdefs.IsAlreadyExists(err) {
		t.Errorf("error %v, want ErrExists", err)
	}
	if _, err := os.Stat(filepath.Join(r.Bundle, "calls")); err == nil {
		t.Error("the existing container was deleted")
	}
	if err := child.Signal(0); err != nil {
		t.Errorf("its process: %v", err)
	}
}

// A runtime that is killed half-way cannot clean up.
func TestAbortedCreateIsUndone(t *testing.T) {
	for name, row := range map[string]struct {
		script string
		limit  time.Duration
		kind   error
	}{
		"killed after it wrote the pid file": {`{"create": {"signal": 9}}`, time.Minute, nil},
		"hung after the process was born":    {`{"create": {"pause": "born"}}`, time.Second, ErrHung},
		"hung at the end":                    {`{"create": {"hang": true}}`, time.Second, ErrHung},
	} {
		t.Run(name, func(t *testing.T) {
			r := fake(t, row.script)
			ctx, cancel := context.WithTimeout(t.Context(), row.limit)
			defer cancel()
			child, _, err := r.Create(ctx, CreateConfig{})
			if err == nil || child != nil || row.kind != nil && !errors.Is(err, row.kind) {
				t.Fatalf("child %v, error %v", child, err)
			}
			if _, err := os.Stat(filepath.Join(r.Root, "c1")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the container is still there: %v", err)
			}
		})
	}
}

func TestUndoThatFailsIsTold(t *testing.T) {
	r := fake(t, `{"create": {"pidFile": "missing"}, "delete": {"error": "cgroup is busy"}}`)
	_, _, err := r.Create(t.Context(), CreateConfig{})
	if err == nil || !strings.Contains(err.Error(), "wrote no pid file") || !strings.HasSuffix(err.Error(), "cgroup is busy") {
		t.Errorf("error %v", err)
	}
}

// The process of an exec that fails after its birth would run on unseen.
func TestFailedExecKillsItsProcessAndNothingElse(t *testing.T) {
	for name, script := range map[string]string{
		"exit status after the pid file": `{"exec": {"exit": 1}}`,
		"killed after the pid file":      `{"exec": {"signal": 9}}`,
		"hung after the pid file":        `{"exec": {"hang": true}}`,
		"console never comes":            `{"exec": {"console": "never"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := fake(t, "{}")
			init := create(t, r)
			rescript(t, r, script)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			child, _, err := r.Exec(ctx, ExecConfig{ID: "e1", Console: strings.HasPrefix(name, "console")})
			if err == nil || child != nil {
				t.Fatalf("child %v, error %v", child, err)
			}
			if diff := cmp.Diff([]int{init.Pid()}, offspring(t)); diff != "" {
				t.Errorf("our children (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLeftoversOfADeadShimDoNotFailTheNextTry(t *testing.T) {
	r := fake(t, "{}")
	for _, name := range []string{"init.pid", ".init.pid", "exec.e1.pid", ".exec.e1.pid", "exec.e1.json"} {
		if err := os.WriteFile(filepath.Join(r.Bundle, name), []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	create(t, r)
	child, _, err := r.Exec(t.Context(), ExecConfig{ID: "e1", Process: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, child)
}

func TestExecCalledInitDoesNotTouchTheInitProcess(t *testing.T) {
	r := fake(t, "{}")
	init := create(t, r)
	for _, id := range []string{"init", "a.json", "..", "exec"} {
		child, _, err := r.Exec(t.Context(), ExecConfig{ID: id, Process: []byte("{}")})
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		endWith(t, child)
	}
	if pid, err := readPid(filepath.Join(r.Bundle, "init.pid")); err != nil || pid != init.Pid() {
		t.Errorf("init.pid holds %d, %v; want %d", pid, err, init.Pid())
	}
	for _, id := range []string{"", "../../x", "a/b", "a\x00b"} {
		if _, _, err := r.Exec(t.Context(), ExecConfig{ID: id}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: error %v, want InvalidArgument", id, err)
		}
	}
}

func TestProcessFileIsReadableForItsOwnerOnly(t *testing.T) {
	r := fake(t, `{"exec": {"record": "calls"}}`)
	create(t, r)
	child, _, err := r.Exec(t.Context(), ExecConfig{ID: "e1", Process: []byte(`{"env":["SECRET=1"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, child)
	if c := recorded(t, r)[0]; c.Process != `{"env":["SECRET=1"]}` || c.Mode.Perm() != 0o600 {
		t.Errorf("the runtime found %q, mode %v", c.Process, c.Mode)
	}
}

func TestFailedCheckpointTellsWhatCRIULogged(t *testing.T) {
	const step = `"files": {"$WORK/%s": "(0.1) Error (a.c:1): first\n(0.2) fine\n(0.3) Error (b.c:2): second\n"}, "error": "criu failed: type NOTIFY errno 0\nlog file: gone"`
	r := fake(t, fmt.Sprintf(`{"checkpoint": {%s}, "restore": {%s}}`, fmt.Sprintf(step, "dump.log"), fmt.Sprintf(step, "restore.log")))
	if err := os.Mkdir(filepath.Join(r.Bundle, "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	checkpoint := r.Checkpoint(t.Context(), CheckpointConfig{Image: "/img"})
	_, _, restore := r.Restore(t.Context(), RestoreConfig{Image: "/img"})
	for name, row := range map[string]struct {
		verb string
		err  error
	}{"criu-dump.log": {"checkpoint", checkpoint}, "criu-restore.log": {"restore", restore}} {
		path := filepath.Join(r.Bundle, name)
		want := "OCI runtime " + row.verb + " failed: criu failed: type NOTIFY errno 0: Error (a.c:1): first; Error (b.c:2): second path= " + path
		if row.err == nil || row.err.Error() != want {
			t.Errorf("error %v, want %q", row.err, want)
		}
		if content, err := os.ReadFile(path); err != nil || !strings.Contains(string(content), "fine") {
			t.Errorf("%s: %q, %v", name, content, err)
		}
	}
}

// The directory is named by a client: what it links to is not ours to show.
func TestLogOfCRIUIsNotReadThroughALink(t *testing.T) {
	r := fake(t, `{"checkpoint": {"error": "criu failed"}}`)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("Error (root): hash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(secret, path) },
		"fifo": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		work := t.TempDir()
		if err := plant(filepath.Join(work, "dump.log")); err != nil {
			t.Fatal(err)
		}
		err := r.Checkpoint(t.Context(), CheckpointConfig{Image: "/img", Work: work})
		if err == nil || err.Error() != "OCI runtime checkpoint failed: criu failed" {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(r.Bundle, "criu-dump.log")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it was copied: %v", name, err)
		}
	}
}

package runc

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// all runs every verb once, with all flags, and pays no heed to errors.
func all(ctx context.Context, r *Runtime) {
	_, _, _ = r.Create(ctx, CreateConfig{NoPivot: true, NoNewKeyring: true})
	_ = r.Start(ctx)
	_, _, _ = r.Exec(ctx, ExecConfig{ID: "e1", Process: []byte(`{"args":["true"]}`)})
	_, _, _ = r.Restore(ctx, RestoreConfig{Image: "/img", NoPivot: true, Parent: "../p"})
	_ = r.Pause(ctx)
	_ = r.Resume(ctx)
	_ = r.Update(ctx, []byte(`{"pids":{"limit":7}}`))
	_ = r.Checkpoint(ctx, CheckpointConfig{
		Image: "/img", Work: "/wrk", Parent: "../p", OpenTCP: true, ExternalUnixSockets: true, Terminal: true,
		FileLocks: true, CgroupsMode: "soft", EmptyNamespaces: []string{"network", "uts"},
	})
	_ = r.Kill(ctx, 34, false)
	_ = r.Kill(ctx, syscall.SIGKILL, true)
	_, _ = r.Pids(ctx)
	_ = r.Delete(ctx, false)
	_ = r.Delete(ctx, true)
}

func TestCommandLinesAreThoseThatWrappersKnow(t *testing.T) {
	r := fake(t, `{"*": {"record": "calls", "error": "no"}}`)
	all(t.Context(), r)
	b := r.Bundle
	want := []string{
		"create --bundle " + b + " --pid-file " + b + "/init.pid --no-pivot --no-new-keyring c1",
		"start c1",
		"exec --process " + b + "/exec.e1.json --detach --pid-file " + b + "/exec.e1.pid c1",
		"restore --image-path /img --work-path " + b + "/work --parent-path ../p --detach --pid-file " + b +
			"/init.pid --no-pivot --no-subreaper --bundle " + b + " c1",
		"pause c1",
		"resume c1",
		"update --resources=- c1",
		"checkpoint --image-path /img --work-path /wrk --parent-path ../p --tcp-established --ext-unix-sk --shell-job " +
			"--file-locks --manage-cgroups-mode soft --empty-ns network --empty-ns uts --leave-running c1",
		"kill c1 34",
		"kill --all c1 9",
		"ps --format json c1",
		"delete c1",
		"delete --force c1",
	}
	var got []string
	for _, c := range recorded(t, r) {
		log := c.Args[3]
		global := []string{"--root", r.Root, "--log", log, "--log-format", "json"}
		if !slices.Equal(c.Args[:6], global) {
			t.Errorf("%s: global part %q, want %q", c.Verb, c.Args[:6], global)
		}
		own := strings.HasPrefix(log, b+"/."+c.Verb+"-") && strings.HasSuffix(log, ".log.json")
		if making := c.Verb == "create" || c.Verb == "restore"; making != (log == b+"/log.json") || !making && !own {
			t.Errorf("%s: log file %s", c.Verb, log)
		}
		if c.Dir != b {
			t.Errorf("%s: working directory %s, want the bundle", c.Verb, c.Dir)
		}
		got = append(got, strings.Join(c.Args[6:], " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command lines (-want +got):\n%s", diff)
	}
}

func TestFlagsFollowTheOptions(t *testing.T) {
	r := fake(t, `{"*": {"record": "calls", "error": "no"}}`)
	r.SystemdCgroup = true
	_, _, _ = r.Create(t.Context(), CreateConfig{Console: true})
	_ = r.Checkpoint(t.Context(), CheckpointConfig{Image: "/img", Exit: true})
	calls := recorded(t, r)
	if c := calls[0].Args; c[6] != "--systemd-cgroup" || c[12] != "--console-socket" || !strings.HasPrefix(c[13], "/proc/") || c[14] != "c1" {
		t.Errorf("create with a console: %q", c)
	}
	want := []string{"--image-path", "/img", "--work-path", r.Bundle + "/work/criu-work", "c1"}
	if diff := cmp.Diff(want, calls[1].Args[8:]); diff != "" {
		t.Errorf("checkpoint that ends the container (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(r.Bundle + "/work/criu-work"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CRIU's directory was left: %v", err)
	}
}

func TestRuntimeIsNotToldOfOurNotifySocket(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("HOLDFAST_TEST", "kept")
	r := fake(t, `{"pause": {"record": "calls", "error": "no"}}`)
	_ = r.Pause(t.Context())
	env := recorded(t, r)[0].Env
	if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") }) {
		t.Error("NOTIFY_SOCKET was handed on")
	}
	if !slices.Contains(env, "HOLDFAST_TEST=kept") {
		t.Error("the rest of the environment was not handed on")
	}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		t.Error("our own environment was changed")
	}
}

func TestErrorTextsBeginAsClientsExpect(t *testing.T) {
	r := fake(t, `{"*": {"error": "it is so"}}`)
	ctx := t.Context()
	_, _, create := r.Create(ctx, CreateConfig{})
	_, _, execErr := r.Exec(ctx, ExecConfig{ID: "e"})
	_, _, restore := r.Restore(ctx, RestoreConfig{})
	_, ps := r.Pids(ctx)
	for want, err := range map[string]error{
		"OCI runtime create failed: it is so":     create,
		"OCI runtime exec failed: it is so":       execErr,
		"OCI runtime restore failed: it is so":    restore,
		"OCI runtime ps failed: it is so":         ps,
		"OCI runtime start failed: it is so":      r.Start(ctx),
		"OCI runtime pause failed: it is so":      r.Pause(ctx),
		"OCI runtime resume failed: it is so":     r.Resume(ctx),
		"OCI runtime update failed: it is so":     r.Update(ctx, nil),
		"OCI runtime checkpoint failed: it is so": r.Checkpoint(ctx, CheckpointConfig{}),
		"failed to delete task: it is so":         r.Delete(ctx, false),
		"unknown error after kill: it is so":      r.Kill(ctx, 9, false),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != 1 || e.ID != "c1" || e.Kind != nil || e.Took <= 0 {
			t.Errorf("%s: %+v", want, e)
		}
	}
}

func TestKillOfTheDeadIsNotFoundInTheWordsThatTestsPin(t *testing.T) {
	for said, want := range map[string]string{
		"container not running":    "process already finished: not found",
		"container does not exist": "no such container: not found",
	} {
		r := fake(t, `{"kill": {"error": "`+said+`"}}`)
		err := r.Kill(t.Context(), 9, false)
		if err == nil || err.Error() != want || !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, want %q", said, err, want)
		}
	}
}

func TestMessageComesFromTheBestSource(t *testing.T) {
	for _, row := range []struct{ name, step, want string }{
		{"last error of several", `"log": ["{\"level\":\"error\",\"msg\":\"first\"}", "{\"level\":\"error\",\"msg\":\" last \"}", "{\"level\":\"info\",\"msg\":\"bye\"}"], "exit": 1`, "last"},
		{"undecodable lines", `"log": ["panic: {", "{\"level\":\"error\",\"msg\":\"real\"}", "{\"level\":\"er"], "exit": 1`, "real"},
		{"no log", `"stderr": "\nwarning: x\nit broke\n", "exit": 1`, "warning: x\nit broke"},
		{"no words at all", `"exit": 3`, "exit status 3"},
		{"killed by a signal", `"signal": 15`, "signal: terminated"},
		{"log without errors", `"log": ["{\"level\":\"warning\",\"msg\":\"hm\"}"], "stderr": "so", "exit": 1`, "so"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := fake(t, `{"pause": {`+row.step+`}}`)
			create(t, r)
			err := r.Pause(t.Context())
			var e *Error
			if !errors.As(err, &e) || e.Message != row.want {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

func TestMessageIsFitForTheWire(t *testing.T) {
	r := fake(t, "{}")
	script := filepath.Join(r.Bundle, "broken")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nprintf 'begin\\377' >&2\nhead -c 100000 /dev/zero | tr '\\0' x >&2\necho end >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	broken := likeness(r)
	broken.Binary = script
	err := broken.Pause(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if !utf8.ValidString(text) || len(text) > 17<<10 || !strings.HasSuffix(text, "xend") {
		t.Errorf("%d bytes, valid: %v", len(text), utf8.ValidString(text))
	}
	if got := clean("begin\xff " + strings.Repeat("é", 20000) + " end"); !utf8.ValidString(got) || len(got) > capLimit ||
		!strings.HasPrefix(got, "begin\uFFFD é") || !strings.HasSuffix(got, "é end") {
		t.Errorf("cut to %d bytes, valid: %v", len(got), utf8.ValidString(got))
	}
}

func TestMissingRuntimeIsNamedInQuotesAndIsNotANotFound(t *testing.T) {
	r := fake(t, "{}")
	for binary, want := range map[string]string{
		"no-runc":      `OCI runtime create failed: exec: "no-runc": executable file not found in $PATH`,
		"/nowhere/run": `OCI runtime create failed: exec: "/nowhere/run": no such file or directory`,
	} {
		missing := likeness(r)
		missing.Binary = binary
		_, _, err := missing.Create(t.Context(), CreateConfig{})
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if errors.Is(err, fs.ErrNotExist) || errdefs.IsNotFound(err) || errors.Is(err, syscall.ENOENT) {
			t.Errorf("%s: ttrpc could take the error for a missing task", binary)
		}
	}
}

func TestCommandsAtTheSameTimeGetTheirOwnErrors(t *testing.T) {
	r := fake(t, `{"pause": {"error": "of pause"}, "resume": {"error": "of resume"}, "update": {"signal": 15}}`)
	create(t, r)
	var wg sync.WaitGroup
	for range 6 {
		for verb, want := range map[string]string{"pause": "of pause", "resume": "of resume", "update": "signal: terminated"} {
			wg.Go(func() {
				if err := r.plain(t.Context(), verb); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: error %v, want %q", verb, err, want)
				}
			})
		}
	}
	wg.Wait()
	content, err := os.ReadFile(filepath.Join(r.Bundle, "log.json"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(content), "of "); n != 12 {
		t.Errorf("log.json holds %d errors, want all 12:\n%s", n, content)
	}
}

func TestEachCommandIsToldOfWhenItHasEnded(t *testing.T) {
	r := fake(t, `{"pause": {"error": "of pause"}}`)
	var told []Call
	r.Ended = func(c Call) { told = append(told, c) }
	began := time.Now()
	create(t, r)
	if err := r.Pause(t.Context()); err == nil {
		t.Error("the pause has not failed")
	}
	child, _, err := r.Exec(t.Context(), ExecConfig{ID: "e1", Process: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	missing := likeness(r)
	missing.Binary = "no-runc"
	if err := missing.Resume(t.Context()); err == nil {
		t.Error("a runtime that is missing has not failed")
	}
	r.Ended = nil
	for i, want := range []Call{{Verb: "create"}, {Verb: "pause", Failed: true}, {Verb: "exec", Exec: "e1"}, {Verb: "resume", Failed: true}} {
		if i >= len(told) {
			t.Fatalf("told of %+v", told)
		}
		if told[i].Began.Before(began) || told[i].Began.After(time.Now()) {
			t.Errorf("%s began at %v", want.Verb, told[i].Began)
		}
		want.Began = told[i].Began
		if told[i] != want {
			t.Errorf("told of %+v, want %+v", told[i], want)
		}
	}
}

func TestLogOfTheBundleDoesNotGrowForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.json")
	line := []byte(strings.Repeat("x", 1000) + "\n")
	for range 3000 {
		if err := appendLimited(path, line); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > logLimit || info.Size() == 0 {
			t.Fatalf("log.json has %d bytes", info.Size())
		}
	}
}

func TestHookThatKeepsStderrOpenDoesNotHoldUsUp(t *testing.T) {
	r := fake(t, `{"pause": {"hook": "30s", "stderr": "words", "exit": 1}}`)
	create(t, r)
	t.Cleanup(func() { killOffspring(t) })
	began := time.Now()
	err := r.Pause(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "words") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestHangEndsWithTheContextAndTellsWhere(t *testing.T) {
	r := fake(t, "{}")
	script := filepath.Join(r.Bundle, "hanger")
	pidFile := filepath.Join(r.Bundle, "sleeper")
	text := "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! > " + pidFile + ".tmp; mv " + pidFile + ".tmp " + pidFile + "\nwait\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	hung := likeness(r)
	hung.Binary = script
	err := hung.Pause(until(t, "its own child", exists(pidFile)))
	if !errors.Is(err, ErrHung) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want ErrHung", err)
	}
	for _, want := range []string{`OCI runtime pause failed: "hanger pause" did not end within `, "was killed", "(hanger) in state ", "(sleep) in state ", "try again"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not contain %q: %v", want, err)
		}
	}
	if os.Geteuid() == 0 && !strings.Contains(err.Error(), " < ") {
		t.Errorf("no kernel stack: %v", err)
	}
	poll(t, "the whole group to die", func() bool { return len(offspring(t)) == 0 })
}

func TestOverdueCommandIsNotRun(t *testing.T) {
	r := fake(t, `{"*": {"record": "calls"}}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Delete(ctx, true); err == nil || !strings.Contains(err.Error(), "not run") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.Bundle, "calls")); err == nil {
		t.Error("the runtime was run")
	}
}

func TestDeleteWorksWithoutABundle(t *testing.T) {
	r := fake(t, "{}")
	child := create(t, r)
	if err := os.RemoveAll(r.Bundle); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), true); err != nil {
		t.Errorf("delete: %v", err)
	}
	if got := waitDone(t, child).Signal; got != syscall.SIGKILL {
		t.Errorf("the process ended by %v", got)
	}
}

func TestDescriptorsAreFreed(t *testing.T) {
	r := fake(t, `{"create": {"child": {"life": "0s"}}, "*": {"error": "no"}}`)
	before := descriptors(t)
	all(t.Context(), r)
	if diff := cmp.Diff(before, descriptors(t)); diff != "" {
		t.Errorf("descriptors (-before +after):\n%s", diff)
	}
}

func TestUpdateHandsOverTheResources(t *testing.T) {
	r := fake(t, `{"update": {"record": "calls"}}`)
	create(t, r)
	if err := r.Update(t.Context(), []byte(`{"pids":{"limit":7}}`)); err != nil {
		t.Fatal(err)
	}
	if got := recorded(t, r)[0].Stdin; got != `{"pids":{"limit":7}}` {
		t.Errorf("the runtime read %q", got)
	}
}

func TestPidsAreWhatTheRuntimePrints(t *testing.T) {
	for out, want := range map[string][]int{
		"null": nil, "[]": {}, "[12]": {12}, "[\n  12,\n  4194304\n]\n": {12, 4194304},
	} {
		got, err := parsePids([]byte(out))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", out, got, err)
		}
	}
	for _, out := range []string{"", "12", "[0]", "[-1]", "[4194305]", "[1.5]", `["1"]`, "[1", "PID\n1"} {
		if got, err := parsePids([]byte(out)); err == nil {
			t.Errorf("%q: taken for %v", out, got)
		}
	}
	r := fake(t, `{"ps": {"stdout": "[1, 2]", "stderr": "a warning", "exit": 0}}`)
	create(t, r)
	if _, err := r.Pids(t.Context()); err == nil {
		t.Error("two lists were taken for one") // the script's and fakerunc's own
	}
	rescript(t, r, "{}")
	if got, err := r.Pids(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("pids %v, error %v", got, err)
	}
}

func TestFeaturesNeedsNoBundle(t *testing.T) {
	got, err := Features(t.Context(), fakePath)
	if err != nil || !strings.Contains(string(got), `"rro"`) {
		t.Errorf("features %s, error %v", got, err)
	}
	if _, err := Features(t.Context(), "true"); err == nil || !strings.Contains(err.Error(), "not JSON") {
		t.Errorf("empty output: error %v", err)
	}
	if _, err := Features(t.Context(), "no-runc"); err == nil || !strings.Contains(err.Error(), `"no-runc"`) {
		t.Errorf("missing runtime: error %v", err)
	}
}

package stdio

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// keeping is a logger's script that gets ready by the given command, and keeps both streams in
// files of its own and its environment and descriptors in others.
func keeping(dir, ready string) string {
	return "cd " + dir + "; env >env; ls -l /proc/$$/fd >fds; " + ready +
		"; exec 5>&-; cat <&3 >out & cat <&4 >err; wait; >ended"
}

// loggerURI names a shell that runs script.
func loggerURI(scheme, script string) string {
	return scheme + ":///bin/sh?-c=" + url.QueryEscape(script)
}

func content(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// exists waits for a file, for which a logger's work is over.
func exists(t *testing.T, elem ...string) {
	t.Helper()
	eventually(t, strings.Join(elem, "/"), func() (bool, string) {
		_, err := os.Stat(filepath.Join(elem...))
		return err == nil, fmt.Sprint(err)
	})
}

// kept is where the output of a process went: functions that wait for the end and read it.
type kept struct{ out, errOut func() string }

// keep names sinks of the scheme in cfg.
func keep(t *testing.T, scheme string, cfg *Config) kept {
	t.Helper()
	dir := t.TempDir()
	nothing := func() string { return "" }
	switch scheme {
	case "null":
		return kept{nothing, nothing}
	case "path", "fifo":
		prefix := map[string]string{"path": "", "fifo": "fifo://"}[scheme]
		a, b := mkfifo(t, "out"), mkfifo(t, "err")
		cfg.Stdout, cfg.Stderr = prefix+a, prefix+b
		gotA := read(t, a, false)
		k := kept{func() string { return string(gotA.all(t)) }, nothing}
		if !cfg.Terminal { // with one nobody touches the FIFO of stderr
			gotB := read(t, b, false)
			k.errOut = func() string { return string(gotB.all(t)) }
		}
		return k
	case "file", "rotated": // for both streams
		cfg.Stdout = "file://" + dir + "/not/yet/log" + map[string]string{"rotated": "?max-size=1Mi"}[scheme]
		return kept{func() string { return content(t, dir, "not/yet/log") }, nothing}
	default:
		cfg.Stdout = loggerURI(scheme, keeping(dir, "echo >&5"))
		cfg.Stderr = cfg.Stdout
		file := func(name string) func() string {
			return func() string { exists(t, dir, "ended"); return content(t, dir, name) }
		}
		return kept{file("out"), file("err")}
	}
}

func TestEverySchemeWithAndWithoutTerminal(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		for _, scheme := range []string{"null", "path", "fifo", "file", "rotated", "binary", "binary-v2"} {
			t.Run(fmt.Sprintf("%s,terminal=%v", scheme, terminal), func(t *testing.T) {
				census(t)
				cfg := Config{Terminal: terminal, ID: "c1", Namespace: "ns"}
				got := keep(t, scheme, &cfg)
				s := openIO(t, cfg)
				start := sh
				if terminal {
					start = shTTY
				}
				exit(t, s, start(t, s, "echo to stdout; echo to stderr >&2"))
				within(t, 5*time.Second, "drain", s.Drained())
				wantOut, wantErr := "to stdout\n", "to stderr\n"
				switch {
				case scheme == "null":
					wantOut, wantErr = "", ""
				case terminal || scheme == "file" || scheme == "rotated":
					wantOut, wantErr = wantOut+wantErr, ""
				}
				if out := got.out(); out != wantOut {
					t.Errorf("stdout became %q", out)
				}
				if errOut := got.errOut(); errOut != wantErr {
					t.Errorf("stderr became %q", errOut)
				}
			})
		}
	}
}

func TestLoggerGetsWhatTheContractSays(t *testing.T) {
	census(t)
	dir := t.TempDir()
	s := openIO(t, Config{
		Stdout: loggerURI("binary-v2", keeping(dir, "echo >&5")), ID: "c1", Namespace: "ns",
	})
	exit(t, s, sh(t, s, "echo bye"))
	exists(t, dir, "ended")
	var env []string
	for line := range strings.Lines(content(t, dir, "env")) {
		if !strings.HasPrefix(line, "PWD=") && !strings.HasPrefix(line, "OLDPWD=") && !strings.HasPrefix(line, "_=") {
			env = append(env, strings.TrimSpace(line)) // those three are the shell's
		}
	}
	if got := strings.Join(env, " "); got != "CONTAINER_ID=c1 CONTAINER_NAMESPACE=ns" {
		t.Errorf("its environment is %q", got)
	}
	fds := content(t, dir, "fds")
	for fd, want := range map[int]string{0: "/dev/null", 2: "/dev/null", 3: "pipe:", 4: "pipe:", 5: "pipe:"} {
		if !strings.Contains(fds, fmt.Sprintf(" %d -> %s", fd, want)) {
			t.Errorf("descriptor %d is not %s:\n%s", fd, want, fds)
		}
	}
	if strings.Contains(fds, " 6 -> ") {
		t.Errorf("there are more descriptors:\n%s", fds)
	}
}

func TestLoggerPerStream(t *testing.T) {
	census(t)
	a, b, out := t.TempDir(), t.TempDir(), mkfifo(t, "out")
	s := openIO(t, Config{Stdout: loggerURI("binary", keeping(a, ":")), Stderr: loggerURI("binary", keeping(b, ":"))})
	exit(t, s, sh(t, s, "echo one; echo two >&2"))
	mixed := openIO(t, Config{Stdout: out, Stderr: loggerURI("binary", keeping(t.TempDir(), ":"))})
	got := read(t, out, false)
	exit(t, mixed, sh(t, mixed, "echo three"))
	same(t, got.all(t), []byte("three\n"))
	exists(t, a, "ended")
	exists(t, b, "ended")
	if got := content(t, a, "out") + content(t, a, "err"); got != "one\n" {
		t.Errorf("the logger of stdout got %q", got)
	}
	if got := content(t, b, "out") + content(t, b, "err"); got != "two\n" {
		t.Errorf("the logger of stderr got %q", got)
	}
}

func TestOpenFailsWithTheLogger(t *testing.T) {
	for name, row := range map[string]struct{ uri, because string }{
		"v2 dies":         {loggerURI("binary-v2", "exit 3"), "did not call ready: it ended with status 3"},
		"v2 only closes":  {loggerURI("binary-v2", "exec 5>&-; read x <&3"), "did not call ready: it closed"},
		"not there":       {"binary:///not/there", "no such file"},
		"not executable":  {"binary:///etc/passwd", "permission denied"},
		"with a terminal": {loggerURI("binary-v2", "exit 5"), "status 5"},
	} {
		t.Run(name, func(t *testing.T) {
			census(t)
			s, err := Open(t.Context(), Config{Stdout: row.uri, Terminal: name == "with a terminal"})
			if s != nil || err == nil || !strings.Contains(err.Error(), row.because) {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
}

func TestLoggersDeathEndsTheWaitThoughItsChildHoldsOn(t *testing.T) {
	census(t)
	pid := t.TempDir() + "/pid"
	orphan(t, pid)
	uri := loggerURI("binary-v2", "sleep 100 & echo $! >"+pid+"; exit 4")
	begin := time.Now()
	_, err := Open(t.Context(), Config{Stdout: uri})
	if err == nil || !strings.Contains(err.Error(), "did not call ready: it ended with status 4") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > readyLimit/2 {
		t.Errorf("took %v", took)
	}
}

func TestLoggerThatIsNeverReadyIsGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	census(t)
	var wg sync.WaitGroup
	for _, scheme := range []string{"binary", "binary-v2"} {
		wg.Go(func() {
			begin := time.Now()
			_, err := Open(t.Context(), Config{Stdout: loggerURI(scheme, "read x <&3")})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", scheme, err)
			}
			if took := time.Since(begin); took < readyLimit || took > readyLimit+2*time.Second {
				t.Errorf("%s: took %v", scheme, took)
			}
		})
	}
	wg.Wait()
}

func TestOpenWaitsForTheLoggerNoLongerThanItsContext(t *testing.T) {
	census(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, Config{Stdout: loggerURI("binary", "read x <&3")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestCloseStopsTheLogger(t *testing.T) {
	for name, row := range map[string]struct {
		script   string
		min, max time.Duration
	}{
		"by SIGTERM":        {"exec 5>&-; exec sleep 1000", 0, 5 * time.Second},
		"after its trap":    {"trap 'echo >trapped; exit 7' TERM; exec 5>&-; while :; do sleep 0.1; done", 0, 5 * time.Second},
		"by SIGKILL at all": {"trap '' TERM; exec 5>&-; while :; do sleep 1; done", termLimit, termLimit + killLimit},
	} {
		t.Run(name, func(t *testing.T) {
			if row.min > 0 && testing.Short() {
				t.Skip("takes 12 s")
			}
			census(t)
			dir := t.TempDir()
			s := openIO(t, Config{Stdout: loggerURI("binary", "cd "+dir+"; "+row.script)})
			exit(t, s, sh(t, s, "echo"))
			begin := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took < row.min || took > row.max {
				t.Errorf("took %v", took)
			}
			if name == "after its trap" {
				exists(t, dir, "trapped")
			}
		})
	}
}

// A logger may stop reading when it hears of the exit, which is after Drained, and dies of the
// SIGTERM of Close.
func TestDrainedWaitsForTheLogger(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			census(t)
			dir := t.TempDir()
			script := "exec 5>&-; sleep 0.5; dd bs=1000 count=60 iflag=fullblock <&3 >" + dir + "/out; exec sleep 1000"
			s := openIO(t, Config{Stdout: loggerURI("binary", script), Terminal: terminal})
			file, want := data(t, 60_000)
			begin := time.Now()
			if terminal {
				exit(t, s, shTTY(t, s, "cat "+file))
			} else {
				exit(t, s, sh(t, s, "cat "+file))
			}
			within(t, 5*time.Second, "drain", s.Drained())
			if took := time.Since(begin); took < 100*time.Millisecond {
				t.Errorf("took only %v", took)
			}
			eventually(t, "the logger to have everything", func() (bool, string) {
				got := content(t, dir, "out")
				return got == string(want), fmt.Sprint(len(got))
			})
		})
	}
}

func TestDrainedIsClosedWhenALoggerDoesNotRead(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	census(t)
	s := openIO(t, Config{Stdout: loggerURI("binary", "exec 5>&-; exec sleep 1000")})
	exit(t, s, sh(t, s, "echo unread"))
	begin := time.Now()
	within(t, drainLimit+3*time.Second, "drain", s.Drained())
	if took := time.Since(begin); took < drainLimit-time.Second {
		t.Errorf("took only %v", took)
	}
}

func TestFailingLoggerLeavesNothing(t *testing.T) {
	census(t)
	for range 100 {
		if _, err := Open(t.Context(), Config{
			Stdin: mkfifo(t, "in"), Stdout: loggerURI("binary-v2", "exit 1"), Stderr: mkfifo(t, "err"),
		}); err == nil {
			t.Fatal("no error")
		}
	}
}

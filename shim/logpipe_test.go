package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// logBundle returns a bundle with a log FIFO, and a function that returns what is in the FIFO.
func logBundle(t *testing.T) (bundle string, drain func() string) {
	t.Helper()
	bundle = t.TempDir()
	makeFIFO(t, filepath.Join(bundle, "log"))
	fd, err := unix.Open(filepath.Join(bundle, "log"), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return bundle, func() string {
		var text strings.Builder
		for b := make([]byte, 1<<16); ; {
			n, err := unix.Read(fd, b)
			if errors.Is(err, unix.EAGAIN) {
				return text.String()
			}
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b[:n])
		}
	}
}

func TestLogLinesLookLikeContainerds(t *testing.T) {
	bundle, drain := logBundle(t)
	log, pipe := openLog(bundle, false)
	defer pipe.Close()
	log.Debug("not shown")
	log.With("task", "c1").WithGroup("g").Info("two words\n", "op", "a b", "", 1, "took", time.Second,
		slog.Group("h", "n", 1), slog.Group("", "m", ""), "err", errors.New("x=\"y\xff\""), "nil", nil,
		"at", time.Unix(0, 0).UTC())
	log.Warn("w")
	log.Error("e")
	const want = `^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)" level=info msg="two words\\n" ` +
		`task=c1 g.op="a b" g.took=1s g.h.n=1 g.m="" g.err="x=\\"y\\xff\\"" g.nil=<nil> g.at=1970-01-01T00:00:00Z
time="[^"]+" level=warning msg="w"
time="[^"]+" level=error msg="e"
$`
	if got := drain(); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLogNeverBlocksAndCountsWhatItDrops(t *testing.T) {
	bundle, drain := logBundle(t)
	log, pipe := openLog(bundle, true)
	defer pipe.Close()
	const lines = 5000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range lines {
			log.Debug("line", "i", i, "filler", strings.Repeat("x", 100))
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("logging blocks while nobody reads")
	}
	kept := strings.Count(drain(), "\n")
	log.Info("after")
	want := fmt.Sprintf(`level=warning msg="%d lines dropped, because nobody read the log"`, lines-kept)
	got := drain()
	if kept == 0 || kept == lines || strings.Count(got, "\n") != 2 || !strings.Contains(got, want) || !strings.Contains(got, `msg="after"`) {
		t.Errorf("after %d of %d lines: %q, want it to have %s", kept, lines, got, want)
	}
	log.Info("again")
	if got := drain(); strings.Count(got, "\n") != 1 {
		t.Errorf("then: %q", got)
	}
}

// TestLongRecordIsSpreadOverLines has records of any length come out whole, up to a limit, in lines
// that a FIFO takes in one piece.
func TestLongRecordIsSpreadOverLines(t *testing.T) {
	bundle, drain := logBundle(t)
	log, pipe := openLog(bundle, false)
	defer pipe.Close()
	for _, n := range []int{0, 1, 3900, 3901, 3902, 3903, 10000, 40000, 200000} {
		text := strings.Repeat("é", n/2) + strings.Repeat("x", n%2)
		log.Info(strings.Repeat("m", 2000), "t", "_"+text+"_")
		lines := strings.SplitAfter(drain(), "\n")
		head, _, _ := strings.Cut(lines[0], " t=")
		whole := ""
		for _, line := range lines[:len(lines)-1] {
			if len(line) > maxLine || !strings.HasPrefix(line, head) || strings.ToValidUTF8(line, "?") != line {
				t.Fatalf("%d bytes: a line of %d bytes: %.80s…", n, len(line), line)
			}
			whole += strings.TrimSuffix(strings.TrimPrefix(line, head), "\n")
		}
		cut := strings.HasSuffix(whole, cutMark)
		if cut != (n > 50000) || !cut && whole != " t=_"+text+"_" {
			t.Errorf("%d bytes: %d bytes in %d lines, cut %v", n, len(whole), len(lines)-1, cut)
		}
	}
}

func TestBundleWithoutLogIsNoError(t *testing.T) {
	for name, prepare := range map[string]func(path string){
		"none": func(string) {},
		"file": func(path string) { writeText(t, path, "") },
		"dir": func(path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := t.TempDir()
			prepare(filepath.Join(bundle, "log"))
			log, closer, err := OpenLog(bundle, true)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("dropped")
			for range 2 {
				if err := closer.Close(); err != nil {
					t.Error(err)
				}
			}
			log.Info("dropped too")
		})
	}
}

// TestCrashIsLogged has a process die by a panic after OpenLog. It is this test again, told by
// a variable.
func TestCrashIsLogged(t *testing.T) {
	const variable = "HOLDFAST_TEST_CRASH"
	if bundle := os.Getenv(variable); bundle != "" {
		if _, _, err := OpenLog(bundle, false); err != nil {
			t.Fatal(err)
		}
		go panic("the last words") // in a goroutine, where testing does not catch it
		<-context.Background().Done()
	}
	bundle, drain := logBundle(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"="+bundle)
	if err := cmd.Run(); err == nil {
		t.Error("the process did not crash")
	}
	if got := drain(); !strings.Contains(got, "panic: the last words") {
		t.Errorf("the log has %q", got)
	}
}

package stdio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// all returns what is in the files of a log, oldest first, and how many there are.
func all(t *testing.T, path string) (text string, files int) {
	t.Helper()
	names, err := os.ReadDir(path[:strings.LastIndex(path, "/")])
	if err != nil {
		t.Fatal(err)
	}
	for i := len(names) - 1; i >= 0; i-- {
		name := path
		if i > 0 {
			name = fmt.Sprint(path, ".", i)
		}
		if b, err := os.ReadFile(name); err == nil {
			text += string(b)
			files++
		}
	}
	if files != len(names) {
		t.Errorf("there are other files: %v", names)
	}
	return text, files
}

// byTerminal runs a test with and without a terminal.
func byTerminal(t *testing.T, test func(t *testing.T, terminal bool, run func(s *IO, script string))) {
	t.Helper()
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			census(t)
			test(t, terminal, func(s *IO, script string) {
				if terminal {
					exit(t, s, shTTY(t, s, script))
				} else {
					exit(t, s, sh(t, s, script))
				}
				within(t, 30*time.Second, "drain", s.Drained())
			})
		})
	}
}

func TestLogIsRotated(t *testing.T) {
	byTerminal(t, func(t *testing.T, terminal bool, run func(*IO, string)) {
		path := t.TempDir() + "/log"
		// The second IO goes on where the first has ended, as an exec or the next container does.
		for range 2 {
			s := openIO(t, Config{Stdout: "file://" + path + "?max-size=1Mi&max-files=3", Terminal: terminal})
			run(s, "seq 400000")
		}
		got, files := all(t, path)
		want := strings.Repeat(string(numbers(400000)), 2)
		if files != 3 || !strings.HasSuffix(want, got) || len(got) < 2<<20 || len(got) > 3<<20+100 {
			t.Errorf("%d files with %d bytes, which end as what was written: %v", files, len(got), strings.HasSuffix(want, got))
		}
		for i := range files {
			name := path
			if i > 0 {
				name = fmt.Sprint(path, ".", i)
			}
			b := content(t, name)
			if !strings.HasSuffix(b, "\n") || i > 0 && (len(b) < 1<<20 || len(b) > 1<<20+10) {
				t.Errorf("%s has %d bytes, and ends in %q", name, len(b), b[len(b)-1:])
			}
		}
	})
}

func TestBothStreamsOfARotatedLogKeepTheirLines(t *testing.T) {
	census(t)
	path := t.TempDir() + "/log"
	uri := "file://" + path + "?max-size=64Ki&max-files=100"
	s := openIO(t, Config{Stdout: uri, Stderr: uri})
	exit(t, s, sh(t, s, "count() { while [ $1 -le $2 ]; do echo $1; set -- $(($1+1)) $2; done; }; count 1 20000 & count 1000001 1020000 >&2; wait"))
	within(t, 10*time.Second, "drain", s.Drained())
	text, _ := all(t, path)
	next := map[int]int{0: 1, 1: 1000001}
	for line := range strings.Lines(text) {
		var n int
		if _, err := fmt.Sscanf(line, "%d\n", &n); err != nil || n != next[n/1000001] {
			t.Fatalf("got the line %q, after %v", line, next)
		}
		next[n/1000001]++
	}
	if next[0] != 20001 || next[1] != 1020001 {
		t.Errorf("lines are missing: %v", next)
	}
}

func TestLineIsSplitOnlyWhenItIsVeryLong(t *testing.T) {
	census(t)
	dir := t.TempDir()
	l := mustRotate(t, dir+"/log", rotation{4096, 100})
	line := bytes.Repeat([]byte("x"), 3*longLine)
	line[len(line)-1] = '\n'
	for part := range bytes.SplitAfterSeq(bytes.Repeat(line, 2), []byte("\n")) {
		for len(part) > 0 {
			n := min(pipeBuf, len(part))
			l.write(part[:n])
			part = part[n:]
		}
	}
	l.close()
	text, files := all(t, dir+"/log")
	if text != string(line)+string(line) || files != 7 {
		t.Errorf("%d files with %d bytes", files, len(text))
	}
}

func mustRotate(t *testing.T, path string, limits rotation) *rotated {
	t.Helper()
	l, err := openRotated(path, limits, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

func TestOneFileIsBegunAnew(t *testing.T) {
	path := t.TempDir() + "/log"
	l := mustRotate(t, path, rotation{4096, 1})
	for i := range 10000 {
		l.write(fmt.Appendln(nil, i))
	}
	text, files := all(t, path)
	if files != 1 || len(text) > 4096+10 || !strings.HasSuffix(text, "\n9999\n") {
		t.Errorf("%d files with %d bytes", files, len(text))
	}
}

// Others may put the log aside too: another relay to it, or the administrator. Its mode is kept.
func TestLogIsFoundAgainByItsName(t *testing.T) {
	path := t.TempDir() + "/log"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := mustRotate(t, path, rotation{4096, 50}), mustRotate(t, path, rotation{4096, 50})
	want := ""
	for i := range 10000 {
		line := fmt.Sprintln(i)
		if i == 5000 {
			if err := os.Rename(path, path+".49"); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			a.write([]byte(line))
		} else {
			b.write([]byte(line))
		}
		want += line
	}
	os.Rename(path+".49", path+".13") // where it would be
	text := ""
	for i := 49; i >= 0; i-- {
		if i == 0 {
			text += content(t, path)
		} else if bytes, err := os.ReadFile(fmt.Sprint(path, ".", i)); err == nil {
			text += string(bytes)
		}
	}
	lines := strings.SplitAfter(text, "\n")
	if len(lines) != 10001 || len(text) != len(want) {
		t.Errorf("%d lines, %d bytes; want %d bytes", len(lines)-1, len(text), len(want))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A full disk drops whole lines, and says how many bytes; the process does not notice.
func TestFullDiskDropsLines(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: cannot mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	byTerminal(t, func(t *testing.T, terminal bool, run func(*IO, string)) {
		path, logs := fmt.Sprint(dir, "/", terminal), &syncBuffer{}
		s := openIO(t, Config{Stdout: "file://" + path + "?max-size=1Mi", Terminal: terminal, Log: logs.logger()})
		run(s, fmt.Sprintf("seq 100000; test $(wc -c <%s) -gt 100000 || exit; : >%[1]s; seq 200000 200100", path))
		last := ""
		for line := range strings.Lines(content(t, path)) {
			last = line
		}
		if last != "200100\n" {
			t.Errorf("the last line is %q", last)
		}
		if got := logs.String(); strings.Count(got, "cannot be written") != 1 || !strings.Contains(got, "written again") ||
			!strings.Contains(got, "dropped=") {
			t.Errorf("logged: %s", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	})
}

// Lines that were dropped leave no part of them, and what was written is a part of what was said.
func TestLinesAreWholeAfterAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: cannot mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	l := mustRotate(t, dir+"/log", rotation{1 << 20, 2})
	ballast := dir + "/ballast"
	torn, last := 0, -1
	for i := range 20000 {
		if i%2000 == 500 {
			os.WriteFile(ballast, make([]byte, 128<<10), 0o600) // all that there is
		}
		if i%2000 == 1000 {
			os.Remove(ballast)
			os.Truncate(dir+"/log", 0)
		}
		l.write(fmt.Appendf(nil, "%060d\n", i))
	}
	for line := range strings.Lines(content(t, dir+"/log")) {
		var n int
		if _, err := fmt.Sscanf(line, "%d\n", &n); err != nil || len(line) != 61 {
			torn++
			continue
		}
		if n <= last {
			t.Fatalf("line %d comes after %d", n, last)
		}
		last = n
	}
	if torn > 1 || last < 19000 {
		t.Errorf("%d lines are torn, the last is %d", torn, last)
	}
}

// rotateVariable makes this test binary a process that logs until it is killed: see beKilled.
const rotateVariable = "HOLDFAST_TEST_ROTATE"

// logForEver writes numbers to a log, from one on, and says on stdout which it has written.
func logForEver(path string, from int) {
	l, err := openRotated(path, rotation{4096, 1000}, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	for i := from; ; i++ {
		l.write(fmt.Appendln(nil, i))
		fmt.Println(i)
	}
}

// Killed at any moment, between two renames for instance, a shim loses nothing that it has written.
func TestKilledWhileRotating(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 100 processes")
	}
	path := t.TempDir() + "/log"
	next := 0
	for range 100 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), rotateVariable+"="+path, fmt.Sprint("FROM=", next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It writes some lines in any case; with luck the signal meets it while it rotates.
		kill := time.AfterFunc(time.Duration(1+rand.IntN(40))*time.Millisecond, func() { cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var n int
			if _, err := fmt.Sscan(lines.Text(), &n); err == nil && n == next {
				next++
			}
		}
		kill.Stop()
		cmd.Wait()
	}
	seen := make([]bool, next+1000000)
	for i := range 1000 {
		name := path
		if i > 0 {
			name = fmt.Sprint(path, ".", i)
		}
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			var n int
			if _, err := fmt.Sscan(line, &n); err == nil && n < len(seen) {
				seen[n] = true
			}
		}
	}
	for i := range next {
		if !seen[i] {
			t.Fatalf("of %d lines, line %d is not there", next, i)
		}
	}
	t.Logf("%d lines", next)
}

// What is no file is not opened, which could wait for ever, and not rotated.
func TestLogThatIsNoFile(t *testing.T) {
	census(t)
	for _, uri := range []string{
		"file://" + mkfifo(t, "a"), "file://" + mkfifo(t, "b") + "?max-size=1Mi", "file:///dev/null?max-size=1Mi", "file:///dev",
	} {
		if _, err := Open(t.Context(), Config{Stdout: uri}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestOneFileWithTwoLimitsIsRefused(t *testing.T) {
	census(t)
	path := t.TempDir() + "/log"
	_, err := Open(t.Context(), Config{Stdout: "file://" + path + "?max-size=1Mi", Stderr: "file://" + path})
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}

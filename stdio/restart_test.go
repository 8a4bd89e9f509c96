package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The older scheme takes the end of descriptor 5 for readiness, also that of a dying logger.
func TestLoggerThatAlwaysDiesDelaysTheExitALittle(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			census(t)
			logs := &syncBuffer{}
			s := openIO(t, Config{Stdout: loggerURI("binary", "exit 3"), Log: logs.logger(), Terminal: terminal})
			eventually(t, "warnings", func() (bool, string) {
				return strings.Count(logs.String(), "status=3") > 1, logs.String()
			})
			start := sh
			if terminal {
				start = shTTY
			}
			c := start(t, s, "echo x; echo y") // gets no SIGPIPE
			begin := time.Now()
			exit(t, s, c)
			if status := c.Exit().Status; status != 0 {
				t.Errorf("the process ended with %d", status)
			}
			within(t, drainLimit/2, "drain", s.Drained())
			if took := time.Since(begin); took < 2*firstRestart {
				t.Errorf("took only %v", took)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(logs.String(), "output lost that the logger has not read\" bytes=4") {
				t.Errorf("nothing says how much is lost:\n%s", logs)
			}
		})
	}
}

// appending is a logger that tells its pid and adds what it reads to a file.
func appending(dir string) string {
	return loggerURI("binary-v2", "cd "+dir+"; echo $$ >pid.new; mv pid.new pid; echo >&5; exec 5>&-; exec cat <&3 >>out")
}

// pidIn waits for a pid in the file that is not the one before.
func pidIn(t *testing.T, file string, before int) (pid int) {
	t.Helper()
	eventually(t, "another pid in "+file, func() (bool, string) {
		b, err := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil && pid != 0 && pid != before, string(b)
	})
	return pid
}

// What the dead logger has read is its own affair; it is killed while it has nothing to read.
func TestKilledLoggerIsStartedAgainAndNothingIsLost(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			census(t)
			dir := t.TempDir()
			_, room := away(0, 0)
			s := openIO(t, Config{Stdout: appending(dir), Terminal: terminal, Room: room})
			pid := pidIn(t, dir+"/pid", 0)
			start := sh
			if terminal {
				start = shTTY
			}
			more := mkfifo(t, "more")
			next, err := os.OpenFile(more, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer next.Close()
			c := start(t, s, "exec 9<"+more+"; for i in 1 2 3 4; do read x <&9; seq 50000; done")
			want := ""
			for range 4 {
				logger := s.loggers[0].current()
				if err := logger.Signal(unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				// One that is dying may still read.
				within(t, 5*time.Second, "death of the logger", logger.Done())
				fmt.Fprintln(next)
				want += string(numbers(50000))
				pid = pidIn(t, dir+"/pid", pid)
				eventually(t, "the logger to have everything", func() (bool, string) {
					got, err := os.ReadFile(dir + "/out") // which a logger makes after its pid file
					return len(got) == len(want), fmt.Sprintf("%d of %d, %v", len(got), len(want), err)
				})
			}
			exit(t, s, c)
			within(t, 5*time.Second, "drain", s.Drained())
			if got := content(t, dir, "out"); got != want {
				t.Errorf("%d bytes arrived, and not the %d that were written", len(got), len(want))
			}
		})
	}
}

// A logger that cannot come back yet; the process writes on.
func TestProcessGoesOnWithoutItsLogger(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			census(t)
			dir := t.TempDir()
			presence, room := away(0, 0)
			presence.Arrive() // the manager has nothing to do with it
			script := "cd " + dir + "; test -e ready || exit 1; echo >&5; exec 5>&-; exec cat <&3 >out"
			if err := os.WriteFile(dir+"/ready", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s := openIO(t, Config{
				Stdout: loggerURI("binary-v2", script), Terminal: terminal, Room: room,
			})
			if err := os.Remove(dir + "/ready"); err != nil {
				t.Fatal(err)
			}
			if err := s.loggers[0].current().Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			file, want := data(t, plenty(t))
			start := sh
			if terminal {
				start = shTTY
			}
			c := start(t, s, "cat "+file)
			within(t, 30*time.Second, "the process to end", c.Done())
			if err := os.WriteFile(dir+"/ready", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.Exited()
			within(t, 30*time.Second, "drain", s.Drained())
			same(t, []byte(content(t, dir, "out")), want)
		})
	}
}

// A logger sees the end of its streams as soon as the process is gone, and is not started again
// after that.
func TestLoggerThatHasReadToTheEndIsNotStartedAgain(t *testing.T) {
	census(t)
	dir := t.TempDir()
	logs := &syncBuffer{}
	s := openIO(t, Config{
		Stdout: loggerURI("binary", "echo >>"+dir+"/starts; exec 5>&-; exec cat <&3 >"+dir+"/out"), Log: logs.logger(),
	})
	c := sh(t, s, "echo all; exec >&- 2>&-; read x <"+mkfifo(t, "never"))
	within(t, 5*time.Second, "the end of keep", s.loggers[0].kept)
	if got := content(t, dir, "out"); got != "all\n" {
		t.Errorf("the logger got %q", got)
	}
	c.Signal(unix.SIGKILL)
	exit(t, s, c)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := content(t, dir, "starts"); got != "\n" || logs.String() != "" {
		t.Errorf("it was started %q; logged: %s", got, logs)
	}
}

func TestLoggersComeFromTheDirectoriesAllowed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: no file is root's")
	}
	root := t.TempDir()
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatal(err)
	}
	for at := real; at != "/"; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm()&0o022 != 0 {
			root = "/root" // a temporary directory is anybody's, as it has to be
		}
	}
	if root == "/root" {
		if root, err = os.MkdirTemp(root, "loggers"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(root) })
	}
	file := func(path string, mode os.FileMode, uid int) string {
		path = filepath.Join(root, path)
		for _, err := range []error{
			os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("#!/bin/sh\n"), mode),
			os.Chmod(path, mode), os.Chown(path, uid, 0),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	link := func(path, to string) string {
		path = filepath.Join(root, path)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("ok/deep/logger", 0o755, 0)
	file("open/logger", 0o755, 0)
	if err := os.Chmod(root+"/open", 0o777); err != nil {
		t.Fatal(err)
	}
	outside := file("outside/logger", 0o755, 0)
	link("ok/out", outside)
	link("ok/in", good)
	link("linked", root+"/ok")
	for name, row := range map[string]struct {
		path, dirs string
		want       error
		because    string
	}{
		"no list":               {path: outside},
		"in it":                 {path: good, dirs: root + "/ok"},
		"second directory":      {path: good, dirs: "/nowhere:" + root + "/ok/"},
		"all of it":             {path: good, dirs: "/"},
		"directory is a link":   {path: good, dirs: root + "/linked"},
		"link within":           {path: root + "/ok/in", dirs: root + "/ok"},
		"not in it":             {outside, root + "/ok", errdefs.ErrPermissionDenied, "in none of"},
		"link out of it":        {root + "/ok/out", root + "/ok", errdefs.ErrPermissionDenied, "in none of"},
		"dots":                  {root + "/ok/../outside/logger", root + "/ok", errdefs.ErrPermissionDenied, "in none of"},
		"a name's beginning":    {outside, root + "/out", errdefs.ErrPermissionDenied, "in none of"},
		"relative directory":    {good, "ok", errdefs.ErrPermissionDenied, "in none of"},
		"empty entries":         {good, ":", errdefs.ErrPermissionDenied, "in none of"},
		"directory is open":     {root + "/open/logger", root, errdefs.ErrPermissionDenied, "open is not root's alone"},
		"group may write":       {file("ok/group", 0o775, 0), root, errdefs.ErrPermissionDenied, "group is not root's alone"},
		"others may write":      {file("ok/others", 0o757, 0), root, errdefs.ErrPermissionDenied, "others is not root's alone"},
		"somebody else's":       {file("ok/theirs", 0o755, 1000), root, errdefs.ErrPermissionDenied, "theirs is not root's alone"},
		"not there":             {root + "/ok/none", root, errdefs.ErrInvalidArgument, "no such file"},
		"a directory not there": {good, root + "/none", errdefs.ErrPermissionDenied, "in none of"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := permitted(row.path, filepath.SplitList(row.dirs))
			if !errors.Is(err, row.want) || row.want != nil && !strings.Contains(err.Error(), row.because) {
				t.Fatalf("got %q, %v; want %v, because %q", got, err, row.want, row.because)
			}
			want := good
			if row.dirs == "" {
				want = outside
			}
			if err == nil && got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("Open", func(t *testing.T) {
		census(t)
		_, err := Open(t.Context(), Config{Stdout: "binary://" + outside, LoggerDirs: []string{root + "/ok"}})
		if !errors.Is(err, errdefs.ErrPermissionDenied) {
			t.Errorf("got %v", err)
		}
	})
}

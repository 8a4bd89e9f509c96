package leak

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// recorder is a test that Check watches, so that another can see what it reports.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors += fmt.Sprintf(format, args...)
}

// end runs the clean-up, as the end of a test does, and returns what was reported.
func (r *recorder) end() string {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	r.cleanups = nil
	return r.errors
}

const briefly = 20 * time.Millisecond

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
}

func start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// leakedHere is the goroutine that a test leaves behind.
func leakedHere(running chan<- struct{}, release <-chan struct{}) {
	close(running)
	<-release
}

// leakGoroutine starts it, and returns once it is inside.
func leakGoroutine(t *testing.T) {
	t.Helper()
	running, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(release) })
	go leakedHere(running, release)
	<-running
}

func TestEachKindOfLeakIsCaught(t *testing.T) {
	dir := t.TempDir()
	cgroup := "leak-test-" + filepath.Base(t.TempDir()) + fmt.Sprint(os.Getpid())
	rows := []struct {
		name string
		root bool
		opt  Option
		leak func(t *testing.T)
		want string // in the report
	}{
		{"goroutine", false, nil, leakGoroutine, "leak.leakedHere"},
		{"file", false, nil, func(t *testing.T) {
			f, err := os.Create(filepath.Join(dir, "open"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, filepath.Join(dir, "open")},
		{"second descriptor of a file", false, nil, func(t *testing.T) {
			fd, err := unix.Dup(2)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
		}, ", before "},
		{"pipe", false, nil, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
		}, "pipe:["},
		{"child", false, nil, func(t *testing.T) { start(t, "sleep", "1000") }, ": sleep 1000"},
		{"zombie", false, nil, func(t *testing.T) {
			cmd := start(t, "true")
			await(t, func() bool { s, err := readStat(cmd.Process.Pid); return err == nil && s.dead() })
		}, "(true) state Z, nobody has waited for it"},
		{"process", false, Pid(start(t, "sleep", "1001").Process.Pid), func(t *testing.T) {}, ": sleep 1001"},
		{"socket", false, Sockets(filepath.Join(dir, "s")), func(t *testing.T) {
			write(t, filepath.Join(dir, "s", "abc"))
		}, filepath.Join(dir, "s", "abc")},
		{"file in a bundle", false, Bundle(filepath.Join(dir, "b"), "allowed"), func(t *testing.T) {
			write(t, filepath.Join(dir, "b", "sub", "e1.pid"))
		}, filepath.Join(dir, "b", "sub", "e1.pid")},
		{"mount", true, Mounts(dir), func(t *testing.T) {
			target := filepath.Join(dir, "mnt")
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(target, 0) })
		}, filepath.Join(dir, "mnt") + ", type tmpfs"},
		{"cgroup", true, Cgroups(cgroup), func(t *testing.T) {
			path := somewhere(t, cgroup)
			for _, d := range []string{path, filepath.Join(path, "c1")} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Rmdir(d) })
			}
		}, filepath.Join(cgroup, "c1")},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.root {
				needRoot(t)
			}
			r := &recorder{TB: t}
			w := Check(r, Within(briefly))
			if row.opt != nil {
				w.Also(row.opt)
			}
			row.leak(t)
			if got := r.end(); !strings.Contains(got, row.want) {
				t.Errorf("%q is not in the report: %q", row.want, got)
			}
		})
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// somewhere returns the path of a cgroup in a hierarchy of this host.
func somewhere(t *testing.T, name string) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(root, &fs); err == nil &&
			(fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC) {
			return filepath.Join(root, name)
		}
	}
	t.Skip("needs a cgroup hierarchy")
	return ""
}

// What was there before, what is allowed, and what goes in time, is no leak.
func TestCleanTestIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.json"))
	held, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	leakGoroutine(t)
	gone := start(t, "sleep", "1002")

	r := &recorder{TB: t}
	Check(r, Mounts(dir), Sockets(filepath.Join(dir, "missing")), Cgroups("leak-test-missing"),
		Bundle(dir, "allowed"), Pid(gone.Process.Pid), Pid(1<<30))
	write(t, filepath.Join(dir, "allowed"))
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pipeR.Read(make([]byte, 1)) // until the end below
		pipeR.Close()
	}()
	time.AfterFunc(briefly, func() {
		pipeW.Close()
		gone.Process.Kill()
	})
	if got := r.end(); got != "" {
		t.Error(got)
	}
	<-done
}

func TestCensusCountsByKind(t *testing.T) {
	before, err := Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flag int) {
		fd, err := unix.Open(path, flag|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
	open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	open(fifo, unix.O_RDWR)
	open("/dev/null", unix.O_RDWR)
	open("/dev/zero", unix.O_RDWR)
	open("/proc/self/stat", unix.O_RDONLY)
	open("/", unix.O_RDONLY)
	after, err := Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ptmx", "fifo", "null", "device", "file", "directory"} {
		if got, want := after.Kinds[kind], before.Kinds[kind]+1; got != want {
			t.Errorf("%s: %d, want %d in %v", kind, got, want, after.Links)
		}
	}
	if after.Ptmx != before.Ptmx+1 || after.Descriptors() != before.Descriptors()+6 || after.Threads < 1 {
		t.Errorf("before %v, after %v", before, after)
	}
	if _, err := Process(1 << 30); err == nil {
		t.Error("a census of no process")
	}
}

func TestStatusIsParsedWhateverTheName(t *testing.T) {
	rest := " S 7 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0"
	got, err := parseStat("42 (a ) b (c) (d))" + rest)
	if want := (stat{pid: 42, parent: 7, name: "a ) b (c) (d)", state: 'S', threads: 3, started: "12345"}); err != nil || got != want {
		t.Errorf("got %+v, error %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42", "42 (a", "42 (a) S 7", "x (a)" + rest, ")" + "(" + rest} {
		if s, err := parseStat(bad); err == nil {
			t.Errorf("%q is %+v", bad, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (sh) S 7 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0")
	f.Add(") (")
	f.Fuzz(func(t *testing.T, line string) {
		if s, err := parseStat(line); err == nil && s.started == "" {
			t.Errorf("%q has no start", line)
		}
	})
}

package stdio

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestBothStreamsOfOnePathShareIt(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Stderr: "fifo://" + out, Direct: direct})
		if n := holders(t, out); n != 1 && !direct || n > 2 {
			t.Errorf("the FIFO is opened %d times", n)
		}
		got := read(t, out, false)
		c := sh(t, s, "echo one; exec >&-; sleep 0.05; echo two >&2")
		exit(t, s, c)
		same(t, got.all(t), []byte("one\ntwo\n"))
	})
}

func TestRegularFileIsAppendedTo(t *testing.T) {
	census(t)
	path, want := data(t, 100_000)
	s := openIO(t, Config{Stdout: path, Stderr: path})
	exit(t, s, sh(t, s, "cat "+path+".more 2>/dev/null; head -c 300000 /dev/zero"))
	within(t, 10*time.Second, "drain", s.Drained())
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, append(want, make([]byte, 300_000)...))
}

func TestFilesBelongToTheUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give pipes away")
	}
	byMode(t, func(t *testing.T, direct bool) {
		in, out, errOut := mkfifo(t, "in"), mkfifo(t, "out"), mkfifo(t, "err")
		s := openIO(t, Config{Stdin: in, Stdout: out, Stderr: errOut, UID: 1234, GID: 4321, Direct: direct})
		a, b, c := s.Files()
		for _, f := range []*os.File{a, b, c} {
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			if st.Uid != 1234 || st.Gid != 4321 {
				t.Errorf("%s belongs to %d:%d", f.Name(), st.Uid, st.Gid)
			}
		}
	})
}

func TestProcessReopensItsStreams(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to start as another user")
	}
	byMode(t, func(t *testing.T, direct bool) {
		out, errOut := mkfifo(t, "out"), mkfifo(t, "err")
		s := openIO(t, Config{Stdout: out, Stderr: errOut, UID: 1234, GID: 4321, Direct: direct})
		got, gotErr := read(t, out, false), read(t, errOut, false)
		c := run(t, s, "/usr/bin/setpriv", "--reuid=1234", "--regid=4321", "--clear-groups",
			"sh", "-c", "echo one >/dev/stdout; echo two >/dev/stderr; ls -l /proc/self/fd >/dev/null")
		exit(t, s, c)
		same(t, gotErr.all(t), []byte("two\n"))
		same(t, got.all(t), []byte("one\n"))
	})
}

func TestOpenRefusesWhatIsNotThere(t *testing.T) {
	census(t)
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"stdin":            {Stdin: dir + "/in", Stdout: mkfifo(t, "out")},
		"stdout":           {Stdin: mkfifo(t, "in"), Stdout: dir + "/out"},
		"stderr":           {Stdin: mkfifo(t, "in"), Stdout: mkfifo(t, "out"), Stderr: "fifo://" + dir + "/err"},
		"stdout directory": {Stdout: dir},
		"stdout scheme":    {Stdout: "ttrpc+unix:///run/s?streaming_id=1"},
		"stdin logger":     {Stdin: "binary:///bin/true"},
		"log in a file":    {Stdout: "file:///etc/passwd/log"},
	} {
		for _, direct := range []bool{false, true} {
			for _, terminal := range []bool{false, true} {
				cfg.Direct, cfg.Terminal = direct, terminal
				s, err := Open(t.Context(), cfg)
				if terminal && name == "stderr" {
					if err := errors.Join(err, s.Close()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					continue // a terminal has none
				}
				if s != nil || !errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s, direct %v, terminal %v: %v, %v", name, direct, terminal, s, err)
				}
			}
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("something was made: %v, %v", entries, err)
	}
}

// What an idle container costs: demand 59 counted 34 of upstream's.
func TestIdleStreamsHoldFewDescriptors(t *testing.T) {
	for name, row := range map[string]struct {
		cfg  Config
		want int
	}{
		"relay":    {Config{}, 7}, // stdin's FIFO is held twice: see openStdin
		"direct":   {Config{Direct: true}, 3},
		"terminal": {Config{Terminal: true}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			census(t)
			row.cfg.Stdin, row.cfg.Stdout, row.cfg.Stderr = mkfifo(t, "in"), mkfifo(t, "out"), mkfifo(t, "err")
			before := len(descriptors(t))
			s := openIO(t, row.cfg)
			if row.cfg.Terminal {
				defer exit(t, s, shTTY(t, s, "read x"))
			} else {
				defer exit(t, s, sh(t, s, "read x"))
			}
			if n := len(descriptors(t)) - before; n != row.want {
				t.Errorf("%d descriptors, want %d", n, row.want)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNullStreamsAreNull(t *testing.T) {
	census(t)
	s := openIO(t, Config{})
	if in, out, errOut := s.Files(); in != nil || out != nil || errOut != nil {
		t.Error("there are files")
	}
	c := sh(t, s, "for i in 0 1 2; do [ $(readlink /proc/$$/fd/$i) = /dev/null ] || exit 1; done")
	exit(t, s, c)
	if c.Exit().Status != 0 {
		t.Error("not all streams are /dev/null")
	}
	within(t, time.Second, "drain", s.Drained())
}

func TestExitBeforeStart(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Direct: direct})
		got := read(t, out, false)
		_, w, _ := s.Files()
		if _, err := w.WriteString("quick"); err != nil {
			t.Fatal(err)
		}
		s.Exited()
		select {
		case <-s.Drained():
			t.Error("drained before anything was passed on")
		default:
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, time.Second, "drain", s.Drained())
		same(t, got.all(t), []byte("quick"))
	})
}

func TestStreamsStartOnce(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		s := openIO(t, Config{Stdout: mkfifo(t, "out"), Direct: direct})
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		terminal := openIO(t, Config{Terminal: true})
		unused := openIO(t, Config{Stdin: mkfifo(t, "in"), Stdout: mkfifo(t, "out"), Direct: direct})
		if err := unused.Close(); err != nil {
			t.Fatal(err)
		}
		within(t, time.Second, "drain", unused.Drained())
		for name, s := range map[string]*IO{"started": s, "terminal": terminal, "closed": unused} {
			if err := s.Start(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

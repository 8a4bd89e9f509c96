package stdio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/fifo"
	"golang.org/x/sys/unix"
)

// client opens a FIFO as containerd and its clients do.
func client(t *testing.T, path string, flags int) io.ReadWriteCloser {
	t.Helper()
	f, err := fifo.OpenFifo(context.Background(), path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// reading collects what a client reads until the end of the stream.
type reading struct {
	done chan struct{}
	data []byte
	err  error
}

// read begins to read path; slow has it take its time.
func read(t *testing.T, path string, slow bool) *reading {
	t.Helper()
	f := client(t, path, unix.O_RDONLY)
	r := &reading{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer f.Close()
		if !slow {
			r.data, r.err = io.ReadAll(f)
			return
		}
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		buf := make([]byte, 5000)
		for {
			n, err := f.Read(buf)
			r.data = append(r.data, buf[:n]...)
			if err != nil {
				if err != io.EOF {
					r.err = err
				}
				return
			}
			<-tick.C
		}
	}()
	return r
}

func (r *reading) all(t *testing.T) []byte {
	t.Helper()
	within(t, 60*time.Second, "end of the client's stream", r.done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.data
}

// numbers is what `seq n` writes.
func numbers(n int) []byte {
	var b bytes.Buffer
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.Bytes()
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Fatalf("got %d bytes, want %d; they differ from byte %d on", len(got), len(want), i)
}

// data makes a file of n bytes that do not repeat.
func data(t *testing.T, n int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256(nil); len(content) < n; sum = sha256.Sum256(sum[:]) {
		content = append(content, sum[:]...)
	}
	content = content[:n]
	path = t.TempDir() + "/data"
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// byMode runs a test over both ways in which a FIFO may be connected.
func byMode(t *testing.T, test func(t *testing.T, direct bool)) {
	t.Helper()
	for _, direct := range []bool{false, true} {
		name := "relay"
		if direct {
			name = "direct"
		}
		t.Run(name, func(t *testing.T) {
			census(t)
			test(t, direct)
		})
	}
}

func TestOutputIsByteExact(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		for shift := 10; shift <= 24; shift++ {
			for _, slow := range []bool{false, true} {
				t.Run(fmt.Sprintf("2^%d,slow=%v", shift, slow), func(t *testing.T) {
					census(t)
					file, want := data(t, 1<<shift)
					out, errOut := mkfifo(t, "out"), mkfifo(t, "err")
					s := openIO(t, Config{Stdout: out, Stderr: errOut, Direct: direct})
					gotOut, gotErr := read(t, out, slow), read(t, errOut, slow)
					c := sh(t, s, "cat "+file+" & cat "+file+" >&2; wait")
					exit(t, s, c)
					same(t, gotOut.all(t), want)
					same(t, gotErr.all(t), want)
					within(t, time.Second, "drain", s.Drained())
				})
			}
		}
	})
}

func TestInputIsByteExact(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		for shift := 10; shift <= 24; shift += 2 {
			_, want := data(t, 1<<shift)
			in, out := mkfifo(t, "in"), mkfifo(t, "out")
			s := openIO(t, Config{Stdin: in, Stdout: out, Direct: direct})
			got := read(t, out, false)
			c := run(t, s, "/bin/cat")
			w := client(t, in, unix.O_WRONLY)
			if _, err := w.Write(want); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := s.CloseStdin(); err != nil {
				t.Fatal(err)
			}
			exit(t, s, c)
			same(t, got.all(t), want)
		}
	})
}

func TestReaderSeesTheEndBeforeClose(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Direct: direct})
		got := read(t, out, false)
		exit(t, s, sh(t, s, "echo bye"))
		same(t, got.all(t), []byte("bye\n"))
	})
}

func TestStreamEndsWhileTheProcessLives(t *testing.T) {
	census(t)
	in, out := mkfifo(t, "in"), mkfifo(t, "out")
	s := openIO(t, Config{Stdin: in, Stdout: out})
	got := read(t, out, false)
	c := sh(t, s, "echo bye; exec >/dev/null; read x")
	same(t, got.all(t), []byte("bye\n"))
	select {
	case <-c.Done():
		t.Fatal("the process has ended")
	default:
	}
	s.CloseStdin()
	exit(t, s, c)
	within(t, time.Second, "drain", s.Drained())
}

func TestInputSurvivesClientsThatComeAndGo(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		in, out := mkfifo(t, "in"), mkfifo(t, "out")
		s := openIO(t, Config{Stdin: in, Stdout: out, Direct: direct})
		got := read(t, out, false)
		c := run(t, s, "/bin/cat")
		for i := range 20 {
			w := client(t, in, unix.O_WRONLY)
			fmt.Fprintln(w, "client", i)
			w.Close()
		}
		last := client(t, in, unix.O_WRONLY)
		fmt.Fprintln(last, "open") // opening goes on in the background until then
		s.CloseStdin()
		s.CloseStdin()
		fmt.Fprintln(last, "last words after CloseStdin")
		last.Close()
		exit(t, s, c)
		var want bytes.Buffer
		for i := range 20 {
			fmt.Fprintln(&want, "client", i)
		}
		fmt.Fprintln(&want, "open")
		fmt.Fprintln(&want, "last words after CloseStdin")
		same(t, got.all(t), want.Bytes())
	})
}

func TestCloseStdinBeforeStart(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		in, out := mkfifo(t, "in"), mkfifo(t, "out")
		s := openIO(t, Config{Stdin: in, Stdout: out, Direct: direct})
		got := read(t, out, false)
		w := client(t, in, unix.O_WRONLY)
		fmt.Fprintln(w, "early")
		w.Close()
		for range 2 {
			if err := s.CloseStdin(); err != nil {
				t.Fatal(err)
			}
		}
		exit(t, s, run(t, s, "/bin/cat"))
		same(t, got.all(t), []byte("early\n"))
		if err := s.CloseStdin(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := s.CloseStdin(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestInputEndsQuietlyWhenTheProcessClosesIt(t *testing.T) {
	census(t)
	in, out := mkfifo(t, "in"), mkfifo(t, "out")
	logs := &syncBuffer{}
	s := openIO(t, Config{Stdin: in, Stdout: out, Log: logs.logger()})
	got := read(t, out, false)
	w := client(t, in, unix.O_WRONLY)
	c := sh(t, s, "exec </dev/null; echo closed; read x < "+mkfifo(t, "never"))
	eventually(t, "the client's writes to fail", func() (bool, string) {
		_, err := w.Write([]byte("x"))
		return err != nil, fmt.Sprint(err)
	})
	c.SignalGroup(unix.SIGKILL)
	exit(t, s, c)
	same(t, got.all(t), []byte("closed\n"))
	if logs.String() != "" {
		t.Error("there was a log line:", logs)
	}
}

func TestClientThatNeverOpensDelaysNothing(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		begin := time.Now()
		s := openIO(t, Config{Stdin: mkfifo(t, "in"), Stdout: mkfifo(t, "out"), Stderr: mkfifo(t, "err"), Direct: direct})
		exit(t, s, sh(t, s, "echo out; echo err >&2"))
		within(t, time.Second, "drain", s.Drained())
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestOutputIsKeptWhileNobodyReads(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		out, more := mkfifo(t, "out"), mkfifo(t, "more")
		s := openIO(t, Config{Stdout: out, Direct: direct})
		first := client(t, out, unix.O_RDONLY)
		c := sh(t, s, "echo first; read x <"+more+"; seq 10000; read x <"+more)
		buf := make([]byte, 100)
		n, err := first.Read(buf)
		if err != nil || string(buf[:n]) != "first\n" {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
		first.Close() // and now nobody holds the FIFO but the shim
		next, err := os.OpenFile(more, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		fmt.Fprintln(next)
		got := read(t, out, false)
		fmt.Fprintln(next)
		exit(t, s, c)
		if status := c.Exit().Status; status != 1 && status != 0 {
			t.Errorf("the process ended with %d", status)
		}
		same(t, got.all(t), numbers(10000))
	})
}

// A line takes up no more room than its bytes, in spite of splice.
func TestLinesShareRoomWhileNobodyReads(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Direct: direct})
		more, written := mkfifo(t, "more"), t.TempDir()+"/written"
		c := sh(t, s, "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; >"+written+"; read x <"+more)
		eventually(t, "all lines to be written", func() (bool, string) {
			_, err := os.Stat(written)
			return err == nil, fmt.Sprint(err)
		})
		got := read(t, out, false)
		next, err := os.OpenFile(more, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		fmt.Fprintln(next)
		exit(t, s, c)
		var want bytes.Buffer
		for i := range 2000 {
			fmt.Fprintln(&want, "line", i)
		}
		same(t, got.all(t), want.Bytes())
	})
}

func TestLastWordsWaitForAReader(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		for _, shared := range []bool{false, true} {
			out := mkfifo(t, "out")
			cfg := Config{Stdout: out, Direct: direct}
			if shared {
				cfg.Stderr = out
			}
			s := openIO(t, cfg)
			exit(t, s, sh(t, s, "echo last words"))
			within(t, time.Second, "drain", s.Drained()) // this does not wait
			if n := holders(t, out); n != 1 {
				t.Errorf("%d holders of the FIFO", n)
			}
			same(t, read(t, out, false).all(t), []byte("last words\n"))
			eventually(t, "us to let go", func() (bool, string) { n := holders(t, out); return n == 0, fmt.Sprint(n) })
		}
	})
}

func TestCloseGivesUpWaitingForAReader(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Direct: direct})
		exit(t, s, sh(t, s, "echo last words"))
		within(t, time.Second, "drain", s.Drained())
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := holders(t, out); n != 0 {
			t.Errorf("%d holders of the FIFO", n)
		}
	})
}

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

func TestProcessGoesOnWhenTheSinkBreaks(t *testing.T) {
	census(t)
	logs := &syncBuffer{}
	s := openIO(t, Config{Stdout: "/dev/full", Log: logs.logger()})
	c := sh(t, s, "head -c 1000000 /dev/zero")
	exit(t, s, c)
	within(t, 10*time.Second, "drain", s.Drained())
	if status := c.Exit().Status; status != 0 {
		t.Errorf("the process ended with %d", status)
	}
	if n := strings.Count(logs.String(), "\n"); n != 1 {
		t.Errorf("%d log lines: %s", n, logs)
	}
}

func TestBackgroundChildIsCut(t *testing.T) {
	census(t)
	out := mkfifo(t, "out")
	s := openIO(t, Config{Stdout: out})
	reader := client(t, out, unix.O_RDONLY)
	end := make(chan struct{})
	go func() {
		defer close(end)
		io.Copy(io.Discard, reader)
	}()
	c := sh(t, s, "sleep 1000 & yes & echo $!") // the first keeps the stream, the second floods it
	exit(t, s, c)
	select {
	case <-s.Drained():
		t.Fatal("drained although the stream is held")
	default:
	}
	begin := time.Now()
	within(t, drainLimit+3*time.Second, "cut", s.Drained())
	if took := time.Since(begin); took < drainLimit-time.Second {
		t.Errorf("cut after %v already", took)
	}
	within(t, time.Second, "end of the client's stream", end)
}

func TestCloseCutsWithoutWaiting(t *testing.T) {
	census(t)
	in, out := mkfifo(t, "in"), mkfifo(t, "out")
	s := openIO(t, Config{Stdin: in, Stdout: out})
	c := sh(t, s, "cat & yes")
	begin := time.Now()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("took %v", took)
	}
	within(t, time.Second, "drain", s.Drained())
	c.SignalGroup(unix.SIGKILL)
	exit(t, s, c)
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

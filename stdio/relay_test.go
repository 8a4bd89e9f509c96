package stdio

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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

// A line that finds the FIFO full is not dropped.
func TestLastLineWaitsForRoom(t *testing.T) {
	census(t)
	out := mkfifo(t, "out")
	s := openIO(t, Config{Stdout: out})
	reader := client(t, out, unix.O_RDONLY)
	fd, err := unix.Open(out, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	c := sh(t, s, fmt.Sprintf("head -c %d /dev/zero; sleep 0.2; echo last line", size))
	exit(t, s, c)
	time.Sleep(100 * time.Millisecond) // now the relay waits
	got, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, append(make([]byte, size), "last line\n"...))
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
	pid := t.TempDir() + "/pid"
	c := sh(t, s, "sleep 1000 & echo $! >"+pid+"; yes &") // one keeps the stream, the other floods it
	orphan(t, pid)
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

package stdio

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

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

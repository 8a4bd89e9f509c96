package direct

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"holdfast/internal/client"
)

// schemes are all that a stream's string can name.
var schemes = []string{"null", "fifo", "fifo://", "file://", "binary://", "binary-v2://"}

// sinks is where the output of a process goes.
type sinks struct {
	*client.IO // strings for the request, the FIFO of stdin, and those of the output if there are any
	out, err   func() string
}

// sinksOf makes the sinks of a scheme for a process; one whose scheme is null has no input either.
func (l *lab) sinksOf(scheme, name string, terminal bool) sinks {
	l.t.Helper()
	if scheme == "null" {
		nothing := func() string { return "" }
		return sinks{&client.IO{Terminal: terminal}, nothing, nothing}
	}
	io := l.io(name, client.IOConfig{Stdin: true, Terminal: terminal})
	dir := filepath.Join(l.dir, "io", name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	file := func(name string) func() string { return func() string { return l.read(filepath.Join(dir, name)) } }
	switch scheme {
	case "fifo", "fifo://":
		s := sinks{io, func() string { return l.output(io.Out) }, func() string { return "" }}
		if !terminal {
			s.err = func() string { return l.output(io.Err) }
		}
		if scheme == "fifo://" {
			io.Stdin, io.Stdout, io.Stderr = scheme+io.Stdin, scheme+io.Stdout, scheme+io.Stderr
		}
		return s
	case "file://":
		io.Stdout, io.Stderr = scheme+dir+"/out", scheme+dir+"/err"
		if terminal {
			return sinks{io, file("out"), func() string { return "" }}
		}
		return sinks{io, file("out"), file("err")}
	default:
		ready := map[string]string{"binary://": "exec 5>&-", "binary-v2://": "echo >&5; exec 5>&-"}[scheme]
		// SIGTERM comes at Delete, when it may not have written down yet what it has read.
		script := fmt.Sprintf("trap '' TERM; cd %s; %s; cat <&3 >out & cat <&4 >err & wait; >ended", dir, ready)
		io.Stdout = scheme + "/bin/sh?-c=" + url.QueryEscape(script)
		io.Stderr = io.Stdout
		ended := func(name string) func() string {
			return func() string {
				l.eventually("the logger ends", func() bool {
					_, err := os.Stat(filepath.Join(dir, "ended"))
					return err == nil
				})
				return file(name)()
			}
		}
		return sinks{io, ended("out"), ended("err")}
	}
}

// TestEveryScheme runs an init and an exec process with every scheme, with and without a terminal,
// looks at every byte, and that the stream ends.
func TestEveryScheme(t *testing.T) {
	for _, kind := range []string{"init", "exec"} {
		for _, terminal := range []bool{false, true} {
			for _, scheme := range schemes {
				t.Run(fmt.Sprintf("%s, terminal %v, %s", kind, terminal, scheme), func(t *testing.T) {
					bundle := sh(`read x; echo "out $x"; echo err >&2; exit 7`)
					bundle.Terminal = terminal
					if kind == "init" {
						l := newLab(t, labConfig{bundle: bundle})
						l.oneScheme(scheme, "", terminal, func(s sinks) { l.mustCreate("c1", s.IO) })
						return
					}
					l := newLab(t, labConfig{bundle: sleeper()})
					l.run("c1", nil)
					l.oneScheme(scheme, "e1", terminal, func(s sinks) { l.mustExec("c1", "e1", bundle, s.IO) })
					l.finish("c1")
				})
			}
		}
	}
}

func (l *lab) oneScheme(scheme, exec string, terminal bool, create func(sinks)) {
	l.t.Helper()
	s := l.sinksOf(scheme, "p"+exec, terminal)
	create(s)
	l.mustStart("c1", exec)
	wantOut, wantErr := "out hi\n", "err\n"
	if terminal {
		wantOut, wantErr = "hi\r\nout hi\r\nerr\r\n", "" // it shows what is typed
	}
	if scheme == "null" {
		wantOut, wantErr = "", ""
	}
	if s.In != nil {
		if _, err := s.In.Write([]byte("hi\n")); err != nil {
			l.t.Fatal(err)
		}
	} else if terminal {
		l.kill("c1", exec, 9) // nobody can type, so it reads for ever
	}
	want := 7
	if s.In == nil && terminal {
		want = 137
	}
	if got := l.wait("c1", exec); got != want {
		l.t.Errorf("exit status %d, want %d", got, want)
	}
	l.mustDelete("c1", exec)
	if got := s.out(); got != wantOut {
		l.t.Errorf("stdout became %q, want %q", got, wantOut)
	}
	if got := s.err(); got != wantErr {
		l.t.Errorf("stderr became %q, want %q", got, wantErr)
	}
}

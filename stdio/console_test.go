package stdio

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// openPty makes a pty as the runtime does.
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// raw has the pty pass on bytes as they are.
func raw(t *testing.T, slave *os.File) {
	t.Helper()
	attrs, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	attrs.Oflag &^= unix.OPOST
	attrs.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	attrs.Iflag &^= unix.ICRNL | unix.IXON
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, attrs); err != nil {
		t.Fatal(err)
	}
}

// shTTY runs a script as the leader of a session with the pty as its terminal.
func shTTY(t *testing.T, s *IO, script string) *reaper.Child {
	t.Helper()
	master, slave := openPty(t)
	raw(t, slave)
	c, err := reaper.Start(&reaper.Command{
		Path: "/usr/bin/setsid", Args: []string{"--ctty", "--wait", "sh", "-c", script},
		Env: os.Environ(), Files: []*os.File{slave, slave, slave},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.SignalGroup(unix.SIGKILL); <-c.Done() })
	slave.Close()
	if err := s.Attach(master); err != nil {
		t.Fatal(err)
	}
	return c
}

// masters counts our pty masters.
func masters(t *testing.T) int {
	t.Helper()
	return strings.Count(strings.Join(descriptors(t), "\n"), "ptmx")
}

func TestLargeTerminalOutputIsByteExact(t *testing.T) {
	want := numbers(1_000_000) // 7 MB
	rounds := 100
	if testing.Short() {
		rounds = 8
	}
	for i := range rounds {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			census(t)
			out := mkfifo(t, "out")
			s := openIO(t, Config{Stdout: out, Stderr: "/not/there", Terminal: true})
			got := read(t, out, i%10 == 7)
			c := shTTY(t, s, "seq 1000000")
			exit(t, s, c)
			same(t, got.all(t), want)
			within(t, time.Second, "drain", s.Drained())
			if n := masters(t); n != 0 {
				t.Errorf("%d masters are left after the drain", n)
			}
		})
	}
}

func TestTerminalInput(t *testing.T) {
	census(t)
	in, out := mkfifo(t, "in"), mkfifo(t, "out")
	s := openIO(t, Config{Stdin: in, Stdout: out, Terminal: true})
	got := read(t, out, false)
	c := shTTY(t, s, "head -c 1000000")
	if n := masters(t); n != 1 {
		t.Errorf("%d masters while the terminal lives", n)
	}
	file, want := data(t, 1_000_000)
	w := client(t, in, unix.O_WRONLY)
	content, _ := os.ReadFile(file)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	exit(t, s, c)
	same(t, got.all(t), want)
}

// TestTerminalHangsUpWhenItsInputHasEnded: the shell of a "kubectl exec -it" whose client had gone
// lived on until its container ended. What the process has said by then must not be lost.
func TestTerminalHangsUpWhenItsInputHasEnded(t *testing.T) {
	census(t)
	in, out := mkfifo(t, "in"), mkfifo(t, "out")
	s := openIO(t, Config{Stdin: in, Stdout: out, Terminal: true})
	got := read(t, out, true)
	w := client(t, in, unix.O_WRONLY)
	c := shTTY(t, s, "trap 'exit 42' HUP; seq 100000; sleep 0.3; seq 100000; while :; do sleep 0.05; done")
	w.Close()
	for range 2 {
		if err := s.CloseStdin(); err != nil {
			t.Fatal(err)
		}
	}
	exit(t, s, c)
	if status := c.Exit().Status; status != 42 {
		t.Errorf("the process ended with %d, want 42, that of its trap for SIGHUP", status)
	}
	same(t, got.all(t), append(numbers(100000), numbers(100000)...))
}

// TestTerminalWithoutInputDoesNotHangUp: nobody has ended what was not there.
func TestTerminalWithoutInputDoesNotHangUp(t *testing.T) {
	census(t)
	out := mkfifo(t, "out")
	s := openIO(t, Config{Stdout: out, Terminal: true})
	got := read(t, out, true)
	c := shTTY(t, s, "sleep 1.5; echo done")
	if err := s.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	exit(t, s, c)
	if status := c.Exit().Status; status != 0 {
		t.Errorf("the process ended with %d", status)
	}
	same(t, got.all(t), []byte("done\n"))
}

func TestHangUpIsNotTheEndBeforeExit(t *testing.T) {
	census(t)
	out := mkfifo(t, "out")
	s := openIO(t, Config{Stdout: out, Terminal: true})
	got := read(t, out, false)
	master, slave := openPty(t)
	name := slave.Name()
	raw(t, slave)
	fmt.Fprint(slave, "0 ")
	slave.Close()
	if err := s.Attach(master); err != nil {
		t.Fatal(err)
	}
	want := "0 "
	for i := range 50 {
		before := cpu(t)
		if i == 25 {
			time.Sleep(300 * time.Millisecond) // a hang-up that lasts costs nothing
			if used := cpu(t) - before; used > 100*time.Millisecond {
				t.Errorf("waiting for a slave took %v of CPU", used)
			}
		}
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "%d ", i)
		f.Close()
		want += fmt.Sprintf("%d ", i)
	}
	select {
	case <-got.done:
		t.Fatal("the stream ended before the process")
	default:
	}
	s.Exited()
	same(t, got.all(t), []byte(want))
	within(t, time.Second, "drain", s.Drained())
}

// cpu is the time that this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestTerminalThatAChildKeepsIsCut(t *testing.T) {
	census(t)
	out := mkfifo(t, "out")
	s := openIO(t, Config{Stdout: out, Terminal: true})
	got := read(t, out, false)
	master, slave := openPty(t)
	defer slave.Close() // the background child
	if err := s.Attach(master); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(slave, "before ")
	s.Exited()
	fmt.Fprint(slave, "after")
	begin := time.Now()
	within(t, drainLimit+3*time.Second, "cut", s.Drained())
	if took := time.Since(begin); took < drainLimit-time.Second {
		t.Errorf("cut after %v already", took)
	}
	same(t, got.all(t), []byte("before after"))
	if n := masters(t); n != 0 {
		t.Errorf("%d masters are left after the cut", n)
	}
}

func TestTerminalWithoutAnyReaderDoesNotBlock(t *testing.T) {
	census(t)
	s := openIO(t, Config{Terminal: true})
	c := shTTY(t, s, "seq 100000")
	exit(t, s, c)
	within(t, time.Second, "drain", s.Drained())
}

func TestResizeTakesEffect(t *testing.T) {
	census(t)
	out, more := mkfifo(t, "out"), mkfifo(t, "more")
	s := openIO(t, Config{Stdout: out, Terminal: true})
	for _, width := range []uint16{80, 12} {
		if err := s.Resize(width, 34); err != nil { // before there is a console
			t.Fatal(err)
		}
	}
	c := shTTY(t, s, "stty size; read x <"+more+"; stty size")
	reader := bufio.NewReader(client(t, out, unix.O_RDONLY))
	for _, want := range []string{"34 12\n", "50 100\n"} {
		if got, err := reader.ReadString('\n'); got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
		if err := s.Resize(100, 50); err != nil {
			t.Fatal(err)
		}
		next, err := os.OpenFile(more, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		fmt.Fprintln(next)
	}
	exit(t, s, c)
	within(t, time.Second, "drain", s.Drained())
	if err := s.Resize(1, 2); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestResizeWithoutConsoleIsNothing(t *testing.T) {
	census(t)
	s := openIO(t, Config{})
	if err := s.Resize(1, 2); err != nil {
		t.Fatal(err)
	}
}

func TestResizesRaceWithTheExit(t *testing.T) {
	census(t)
	s := openIO(t, Config{Stdout: mkfifo(t, "out"), Terminal: true})
	c := shTTY(t, s, "echo bye")
	end := make(chan struct{})
	go func() {
		defer close(end)
		for i := range 10_000 {
			if err := s.Resize(uint16(i), 1); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	exit(t, s, c)
	within(t, time.Second, "drain", s.Drained())
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	within(t, 10*time.Second, "resizes", end)
}

func TestAttachAtTheWrongTimeClosesTheMaster(t *testing.T) {
	census(t)
	closed := openIO(t, Config{Terminal: true})
	closed.Close()
	for name, s := range map[string]*IO{"closed": closed, "no terminal": openIO(t, Config{})} {
		master, slave := openPty(t)
		slave.Close()
		if err := s.Attach(master); err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := masters(t); n != 0 {
			t.Errorf("%s: %d masters are left", name, n)
		}
	}
	if err := openIO(t, Config{Terminal: true}).Attach(nil); err == nil {
		t.Error("no master: no error")
	}
}

package stdio

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// away returns the room of a container whose manager is away.
func away(budget, memory int64) (*Presence, *Room) {
	p := NewPresence()
	return p, NewRoom(p, budget, memory)
}

// spy opens a FIFO to look at it. It is no reader: while it is there, a writer is too.
func spy(t *testing.T, path string) int {
	t.Helper()
	fd, err := open(path, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func capacity(t *testing.T, fd int) int {
	t.Helper()
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// plenty is how much a process writes while nobody reads: 32 MiB, or as much as may be on a machine
// whose kernel grants us no FIFO of 64.
func plenty(t *testing.T) int {
	t.Helper()
	r, w, err := pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(r)
	defer unix.Close(w)
	for size := defaultBudget; size > smallPipe; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(w), unix.F_SETPIPE_SZ, size); err == nil {
			return size / 2
		}
	}
	t.Fatal("the kernel lets no pipe grow")
	return 0
}

// small makes a FIFO as small as that of a relay is, so that there is something to grow.
func small(t *testing.T, fd int) {
	t.Helper()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, smallPipe); err != nil {
		t.Fatal(err)
	}
}

// byWay runs a test over all ways in which a FIFO is written to; start runs a script.
func byWay(t *testing.T, test func(t *testing.T, cfg Config, start func(s *IO, script string) (done func()))) {
	t.Helper()
	for name, cfg := range map[string]Config{
		"direct": {Direct: true}, "relay": {}, "terminal": {Terminal: true},
	} {
		t.Run(name, func(t *testing.T) {
			census(t)
			test(t, cfg, func(s *IO, script string) func() {
				if cfg.Terminal {
					c := shTTY(t, s, script)
					return func() { exit(t, s, c) }
				}
				c := sh(t, s, script)
				return func() { exit(t, s, c) }
			})
		})
	}
}

func TestProcessGoesOnWhileTheManagerIsAway(t *testing.T) {
	byWay(t, func(t *testing.T, cfg Config, start func(*IO, string) func()) {
		presence, room := away(0, 0)
		presence.Arrive()
		cfg.Stdout, cfg.Room = mkfifo(t, "out"), room
		file, want := data(t, plenty(t))
		more, written := mkfifo(t, "more"), t.TempDir()+"/written"
		s := openIO(t, cfg)
		fd := spy(t, cfg.Stdout)
		small(t, fd)
		finish := start(s, "cat "+file+"; >"+written+"; read x <"+more)
		eventually(t, "the FIFO to be full", func() (bool, string) { return isFull(fd), "room" })
		presence.Leave()
		begin := time.Now()
		eventually(t, "all to be written", func() (bool, string) {
			_, err := os.Stat(written)
			return err == nil, fmt.Sprint(err)
		})
		t.Logf("%d bytes are written %v after the manager has left", len(want), time.Since(begin))
		presence.Arrive()
		if size := capacity(t, fd); size <= smallPipe {
			t.Errorf("the FIFO has %d bytes, as before", size)
		}
		unix.Close(fd)
		got := read(t, cfg.Stdout, false)
		fd = spy(t, cfg.Stdout)
		eventually(t, "the FIFO to be as small as before", func() (bool, string) {
			size := capacity(t, fd)
			return size == smallPipe, fmt.Sprint(size)
		})
		eventually(t, "nobody to look at it any more", func() (bool, string) {
			all := strings.Join(goroutines(), "\n\n")
			return !strings.Contains(all, "(*Presence)"), all
		})
		unix.Close(fd)
		next, err := os.OpenFile(more, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		fmt.Fprintln(next)
		finish()
		same(t, got.all(t), want)
	})
}

// A process waits for no longer than it takes to notice that it waits.
func TestNoWriteWaitsLong(t *testing.T) {
	byMode(t, func(t *testing.T, direct bool) {
		_, room := away(0, 0)
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Direct: direct, Room: room})
		fd := spy(t, out)
		small(t, fd)
		unix.Close(fd)
		_, w, _ := s.Files()
		w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		var longest time.Duration
		buf := make([]byte, 32<<10)
		for range plenty(t) / len(buf) {
			begin := time.Now()
			if err := w.SetWriteDeadline(begin.Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(buf); err != nil {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(begin))
		}
		if longest > 2*lastGlance {
			t.Errorf("a write took %v", longest)
		}
	})
}

// stalled waits until the FIFOs at fds are full and have been looked at since, without becoming
// larger, and returns their sizes.
func stalled(t *testing.T, fds ...int) []int {
	t.Helper()
	sizes, since := make([]int, len(fds)), time.Now()
	eventually(t, "the FIFOs to stay full", func() (bool, string) {
		for i, fd := range fds {
			if now := capacity(t, fd); !isFull(fd) || now != sizes[i] {
				sizes[i], since = now, time.Now()
			}
		}
		return time.Since(since) > 2*lastGlance, fmt.Sprintf("%d bytes since %v", sizes, time.Since(since))
	})
	return sizes
}

func TestGrowthHasLimits(t *testing.T) {
	const KiB = 1 << 10
	for name, row := range map[string]struct {
		budget, memory  int64
		present, noRoom bool
		want            int // of each; or 0
		total           int // of both: more than half of that
	}{
		"budget":                  {budget: 512 * KiB, want: 512 * KiB},
		"odd budget":              {budget: 512*KiB - 1, want: 256 * KiB},
		"default":                 {want: 2 * plenty(t)},
		"never":                   {budget: -1, want: smallPipe},
		"manager is there":        {present: true, want: smallPipe},
		"no room":                 {noRoom: true, want: smallPipe},
		"less than there was":     {budget: 4096, want: smallPipe},
		"memory":                  {memory: 4096 * KiB, total: 512 * KiB},
		"little memory":           {memory: 512 * KiB, want: smallPipe},
		"memory and small budget": {budget: 256 * KiB, memory: 1 << 30, want: 256 * KiB},
	} {
		t.Run(name, func(t *testing.T) {
			census(t)
			presence, room := away(row.budget, row.memory)
			presence.Arrive()
			if row.noRoom {
				room = nil
			}
			out, errOut := mkfifo(t, "out"), mkfifo(t, "err")
			s := openIO(t, Config{Stdout: out, Stderr: errOut, Direct: true, Room: room})
			fdOut, fdErr := spy(t, out), spy(t, errOut)
			small(t, fdOut)
			small(t, fdErr)
			if !row.present {
				presence.Leave()
			}
			c := sh(t, s, "yes & exec yes >&2")
			defer func() { c.SignalGroup(unix.SIGKILL); exit(t, s, c) }()
			sizes := stalled(t, fdOut, fdErr)
			a, b := sizes[0], sizes[1]
			if row.want > 0 && (a != row.want || b != row.want) {
				t.Errorf("the FIFOs have %d and %d bytes, want %d", a, b, row.want)
			}
			if row.want == 0 && (a+b > row.total || a+b <= row.total/2) {
				t.Errorf("the FIFOs have %d and %d bytes, want %d in all", a, b, row.total)
			}
		})
	}
}

// What a process may write to directly, at any time, leaves room too.
func TestFIFOsAreSmallInSmallContainers(t *testing.T) {
	census(t)
	for memory, want := range map[int64]int{0: roomy, 1 << 30: roomy, 16 << 20: 512 << 10, 1 << 20: smallPipe} {
		_, room := away(0, memory)
		out := mkfifo(t, "out")
		openIO(t, Config{Stdout: out, Direct: true, Room: room})
		if size := capacity(t, spy(t, out)); size != want {
			t.Errorf("memory %d: the FIFO has %d bytes, want %d", memory, size, want)
		}
	}
}

func TestExecsShareTheRoomOfTheContainer(t *testing.T) {
	census(t)
	const memory, execs = 16 << 20, 10
	_, room := away(0, memory)
	total := 0
	var fds []int
	for i := range execs {
		out := mkfifo(t, fmt.Sprint("out", i))
		s := openIO(t, Config{Stdout: out, Room: room})
		c := sh(t, s, "exec yes")
		defer func() { c.SignalGroup(unix.SIGKILL); exit(t, s, c) }()
		fds = append(fds, spy(t, out))
	}
	for _, size := range stalled(t, fds...) {
		total += size
	}
	// The last ones may have come when the room was used up.
	if total > memory/share+execs*smallPipe || total <= memory/share/2 {
		t.Errorf("the FIFOs have %d bytes together", total)
	}
}

// Without privileges the kernel makes no pipe larger than fs.pipe-max-size.
func TestRefusedGrowthIsAsLargeAsGranted(t *testing.T) {
	var most int
	if _, err := fmt.Sscan(content(t, "/proc/sys/fs/pipe-max-size"), &most); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() { // on a thread of its own, which ends with it
		runtime.LockOSThread()
		result <- func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			if err := unix.Capset(&header, &make([]unix.CapUserData, 2)[0]); err != nil {
				return err
			}
			r, w, err := pipe()
			if err != nil {
				return err
			}
			defer unix.Close(r)
			defer unix.Close(w)
			_, room := away(0, 0)
			e := &elastic{room: room, pipe: &hold{fd: w}, size: smallPipe}
			for range 10 {
				if err := unix.SetNonblock(w, true); err != nil {
					return err
				}
				for !isFull(w) {
					if _, err := unix.Write(w, make([]byte, smallPipe)); err != nil {
						return err
					}
				}
				e.look(true, maxPipe)
			}
			if e.size != most {
				return fmt.Errorf("the pipe has %d bytes", e.size)
			}
			return nil
		}()
	}()
	if err := <-result; err != nil {
		t.Errorf("%v, want %d", err, most)
	}
}

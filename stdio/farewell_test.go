package stdio

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// A child that does not run its program yet has a copy of our hold on a FIFO, and looks like the reader
// that last words wait for.
func TestLastWordsAreKeptWhileOthersAreStarted(t *testing.T) {
	census(t)
	stop := make(chan struct{})
	var starters sync.WaitGroup
	for range 3 {
		starters.Go(func() {
			for !isClosed(stop) {
				c, err := reaper.Start(&reaper.Command{Path: "true"})
				if err != nil {
					t.Error(err)
					return
				}
				<-c.Done()
			}
		})
	}
	defer starters.Wait()
	defer close(stop)
	const words = "last words\n"
	for round := range 60 {
		out := mkfifo(t, "out")
		s := openIO(t, Config{Stdout: out, Direct: true})
		exit(t, s, sh(t, s, "echo last words"))
		within(t, 10*time.Second, "drain", s.Drained())
		time.Sleep(3 * time.Millisecond) // a child runs its program by now
		fd, err := unix.Open(out, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		n, err := unix.Read(fd, got)
		unix.Close(fd)
		if err != nil || string(got[:max(n, 0)]) != words {
			t.Fatalf("round %d: got %q, %v", round, got[:max(n, 0)], err)
		}
	}
}

// A copy of our hold may be let go some time after its child has told of its program.
func TestLastWordsOutlastACopyThatIsLetGoLate(t *testing.T) {
	out := mkfifo(t, "out")
	open := func(flags int) int {
		fd, err := unix.Open(out, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	hold := open(unix.O_RDWR)
	writer := open(unix.O_WRONLY)
	const words = "last words\n"
	if _, err := unix.Write(writer, []byte(words)); err != nil {
		t.Fatal(err)
	}
	looks, gone, left := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		stay(writer, gone, func() bool {
			if looks++; looks == 3 {
				unix.Close(hold) // between the look at the children and the one at the FIFO
			}
			return looks < 3
		})
		unix.Close(writer)
	}()
	select {
	case <-left:
		t.Error("the copy was taken for a reader")
	case <-time.After(20 * firstLook):
	}
	reader := open(unix.O_RDONLY)
	defer unix.Close(reader)
	within(t, 10*time.Second, "the end", left)
	got := make([]byte, 100)
	n, err := unix.Read(reader, got)
	if err != nil || string(got[:max(n, 0)]) != words || looks < 3 {
		t.Errorf("got %q, %v after %d looks", got[:max(n, 0)], err, looks)
	}
}

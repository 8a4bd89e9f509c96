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

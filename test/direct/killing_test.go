package direct

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"holdfast/internal/client"
)

// TestManagerKilledAHundredTimes kills the manager at random moments, under a load of containers and
// execs. In the end every event has come, in order, and none twice but those whose answer was lost.
func TestManagerKilledAHundredTimes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const kills, workers = 100, 4
	l := newLab(t, labConfig{bundle: sleeper()})
	l.history = withoutRepeats
	l.run("c1", nil)
	for i := range workers {
		l.bundle(fmt.Sprint("w", i), sh("exit 5"))
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	want := make([]int, workers) // events
	for i := range workers {
		load.Go(func() { want[i] = l.work(i, stop) })
	}
	for i := range kills {
		pause := time.Duration(rand.IntN(100)) * time.Millisecond
		if i%10 == 0 {
			pause += 2 * time.Second // as long as events are held back for those who listen
		}
		time.Sleep(pause)
		l.Events.Away(false)
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		if err := l.Events.Back(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	load.Wait()
	l.finish("c1")
	l.event(client.Deletes("c1", ""))
	total := 4
	for _, n := range want {
		total += n
	}
	t.Logf("%d events", total)
	events := withoutRepeats(l.Events.All())
	if len(events) != total {
		t.Errorf("%d events came, want %d", len(events), total)
	}
	if again := len(l.Events.All()) - len(events); again > kills {
		t.Errorf("%d events came again", again)
	}
}

// maxRounds keeps a quick machine from making more events than may wait before those are left out that
// say nothing new: four workers with three or four each.
const maxRounds = 250

// work runs execs in c1, and containers one after the other, until stop, and returns how many events
// there have to be.
func (l *lab) work(worker int, stop <-chan struct{}) (events int) {
	id := fmt.Sprint("w", worker)
	for i := 0; ; i++ {
		if i == maxRounds {
			<-stop
		}
		select {
		case <-stop:
			return events
		default:
		}
		if i%4 > 0 {
			if err := l.oneExec("c1", fmt.Sprintf("e%d-%d", worker, i), sh("exit 6"), 6); err != nil {
				l.t.Error(err)
				return events
			}
			events += 3
			continue
		}
		if _, err := l.create(id, nil); err != nil {
			l.t.Error(err)
			return events
		}
		if _, err := l.start(id, ""); err != nil {
			l.t.Error(err)
			return events
		}
		if got := l.wait(id, ""); got != 5 {
			l.t.Errorf("exit status %d", got)
		}
		l.mustDelete(id, "")
		events += 4
	}
}

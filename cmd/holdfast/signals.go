package main

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// signals turns what the user or the system sends us into an orderly end: the first signal kills
// the container, whose life then ends as any other; the second gives up on it, and so does the
// first when there is no container. Nothing is left in either case.
type signals struct {
	received chan os.Signal
	opened   chan struct{} // closed by open
	stopped  chan struct{} // closed by stop
	ended    sync.WaitGroup
}

// watchSignals begins to collect signals. kill, which ends soon after giveUp has been called,
// reports whether there was something to kill.
func watchSignals(kill func() bool, giveUp func()) *signals {
	s := &signals{
		received: make(chan os.Signal, 4),
		opened:   make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	// SIGINT and SIGQUIT come from a terminal that is not in raw mode, SIGHUP when it is closed, and
	// SIGPIPE when nobody reads our output any more.
	signal.Notify(s.received, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	s.ended.Go(func() { s.attend(kill, giveUp) })
	return s
}

// attend ends with stop.
func (s *signals) attend(kill func() bool, giveUp func()) {
	select {
	case <-s.opened:
	case <-s.stopped:
		return
	}
	killed := make(chan bool, 1)
	for first := true; ; {
		select {
		case sig := <-s.received:
			if !first {
				// SIGPIPE comes with every write that fails: it is nobody's impatience.
				if sig != unix.SIGPIPE {
					giveUp()
				}
				continue
			}
			first = false
			s.ended.Go(func() { killed <- kill() })
		case ok := <-killed:
			if !ok {
				giveUp()
			}
		case <-s.stopped:
			return
		}
	}
}

// open lets signals have their effect, those that have come already included.
func (s *signals) open() { close(s.opened) }

// stop gives signals back their usual effect. It waits for a kill that is under way.
func (s *signals) stop() {
	signal.Stop(s.received)
	close(s.stopped)
	s.ended.Wait()
}

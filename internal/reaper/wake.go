package reaper

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

const (
	siginfoSize = 128 // of a signalfd_siginfo (signalfd(2))
	// deafPause is how often it is looked for the dead if the descriptor of SIGCHLD cannot be read, which
	// no kernel is known to do.
	deafPause = 100 * time.Millisecond
)

// listen calls bury whenever children have died from now on, as long as the process lives.
//
// As the shim is built (internal/tune) all its threads block SIGCHLD, and no process that it starts does. The
// kernel then keeps the signal for a descriptor, which Go's poller watches among its others. Where it is not
// blocked os/signal brings it, by way of three threads: the one that the kernel has interrupted, the one that
// waits for signals, and the one that goes on with the work.
func (r *registry) listen() error {
	var blocked unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &blocked); err != nil {
		return fmt.Errorf("look which signals are blocked: %w", err)
	}
	var sigchld unix.Sigset_t
	sigchld.Val[0] = 1 << (unix.SIGCHLD - 1)
	if blocked.Val[0]&sigchld.Val[0] == 0 {
		r.listenBySignals()
		return nil
	}
	return r.listenByDescriptor(&sigchld)
}

func (r *registry) listenBySignals() {
	wake := make(chan os.Signal, 1)
	signal.Notify(wake, unix.SIGCHLD)
	go func() {
		// A signal that arrives while bury runs leaves a token, so no exit waits for the next one.
		for range wake {
			r.bury()
		}
	}()
}

func (r *registry) listenByDescriptor(sigchld *unix.Sigset_t) error {
	fd, err := unix.Signalfd(-1, sigchld, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make a descriptor of SIGCHLD: %w", err)
	}
	queue := os.NewFile(uintptr(fd), "signalfd")
	go func() {
		signals := make([]byte, siginfoSize)
		for {
			// One that arrives while bury runs stays in the kernel until the next Read.
			if _, err := queue.Read(signals); err != nil {
				time.Sleep(deafPause)
			}
			r.bury()
		}
	}()
	return nil
}

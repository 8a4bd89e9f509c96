package oom

import (
	"fmt"
	"path/filepath"
	"time"
)

// open2 opens memory.events. The kernel wakes those who poll it when one of its figures has
// changed since it was last read through the same descriptor (cgroup v2 documentation,
// "memory.events"); Go's poller has the descriptor edge-triggered, which is all that it takes.
func (w *Watch) open2(dir string) error {
	f, err := openFile(filepath.Join(dir, "memory.events"))
	if err != nil {
		return err
	}
	w.counter, w.wake = f, f
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("poll %s: %w", f.Name(), err)
	}
	return nil
}

// lag is for how long the counter is read again and again once a limit was hit: the kernel counts that
// first and the kill right after it, but does not wake us twice within 10 ms, and a group that systemd
// removes may be gone by then.
const lag = 50 * time.Millisecond

// run2 reads the counter at once and whenever the poller wakes it. Reading it also arms the
// next wake-up, so nothing that happens in between goes unnoticed.
func (w *Watch) run2() {
	raw, err := w.wake.SyscallConn()
	if err != nil {
		return // closed; cannot be before Close has joined us
	}
	for {
		var n counts
		var gone error
		err := raw.Read(func(fd uintptr) bool {
			n, gone = countAt(fd)
			return gone != nil || n.kills > w.kills.Load() || n.ooms > w.followed.Load()
		})
		if err != nil || gone != nil {
			return
		}
		if n.kills > w.kills.Load() {
			w.rise(n)
		} else if !w.follow() {
			return
		}
		w.followed.Store(max(w.followed.Load(), n.ooms))
	}
}

// follow waits for the kill after a limit was hit, if there is one. It is false if there is no more
// to come.
func (w *Watch) follow() bool {
	for until := time.Now().Add(lag); !w.closing.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			return true
		}
		if rose, err := w.look(); rose || err != nil {
			return err == nil
		}
	}
	return true
}

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

// run2 reads the counter at once and whenever the poller wakes it. Reading it also arms the
// next wake-up, so nothing that happens in between goes unnoticed.
func (w *Watch) run2() {
	raw, err := w.wake.SyscallConn()
	if err != nil {
		return // closed; cannot be before Close has joined us
	}
	for {
		var n uint64
		var gone error
		err := raw.Read(func(fd uintptr) bool {
			n, gone = countAt(fd)
			return gone != nil || n > w.kills.Load()
		})
		if err != nil || gone != nil {
			return
		}
		w.rise(n)
	}
}

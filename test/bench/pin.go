package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// pin lets a thread, 0 being the caller's, run on one CPU only: the first that it may use, or the
// last one. Left to itself the scheduler puts a client and its process now on the same CPU and now on
// two, which makes a factor of two, whatever is between them.
func pin(pid int, last bool) error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &may); err != nil {
		return fmt.Errorf("read affinity of %d: %w", pid, err)
	}
	left := may.Count()
	for cpu := 0; left > 0; cpu++ {
		if may.IsSet(cpu) {
			left--
			if !last || left == 0 {
				one.Set(cpu)
				break
			}
		}
	}
	if err := unix.SchedSetaffinity(pid, &one); err != nil {
		return fmt.Errorf("set affinity of %d: %w", pid, err)
	}
	return nil
}

// pinClient pins the calling goroutine like pin until unpin is called. What it starts meanwhile is
// pinned like it.
func pinClient(last bool) (unpin func(), err error) {
	runtime.LockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("read affinity: %w", err)
	}
	if err := pin(0, last); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		// A thread that is still pinned is not given back: it ends with its goroutine.
		if unix.SchedSetaffinity(0, &before) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// meterVariable names the file to which a metered action adds its CPU time, in nanoseconds, and
// meteredVariable the shim.
const (
	meterVariable   = "BENCH_METER"
	meteredVariable = "BENCH_METERED"
)

// meter is this binary in the place of a shim: it runs an action of the shim and notes the CPU
// time of that process alone, without what it has waited for, such as the runtime.
func meter(args []string) error {
	cmd := exec.Command(os.Getenv(meteredVariable), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	spent, err := lastTime(cmd.Process.Pid)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return err
	}
	f, err := os.OpenFile(os.Getenv(meterVariable), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, spent.Nanoseconds())
	return errors.Join(err, f.Close())
}

// lastTime waits until a child has ended and returns the CPU time that it has used. The child can
// be waited for afterwards: until then the kernel keeps its clock.
func lastTime(pid int) (time.Duration, error) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		}
		return cpuTime(pid)
	}
}

// metered is the CPU time of the three processes of a life.
type metered struct{ start, daemon, remove time.Duration }

// meteredLife is live for the CPU time of the shim: that of the daemon, of start, and of delete.
// The daemon becomes a child of this process when start has ended.
func (b *bench) meteredLife(ctx context.Context, dir string, shim contender) (spent metered, err error) {
	file := filepath.Join(b.dir, "meter")
	for name, value := range map[string]string{meterVariable: file, meteredVariable: shim.path} {
		if err := os.Setenv(name, value); err != nil {
			return spent, err
		}
		defer os.Unsetenv(name)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return spent, err
	}
	defer func() {
		err = errors.Join(err, os.Remove(file), unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
	}()
	shim.path = b.self
	l, err := live(ctx, dir, shim)
	if err != nil {
		return spent, err
	}
	if spent.daemon, err = lastTime(l.pid); err != nil {
		return spent, err
	}
	if _, err := syscall.Wait4(l.pid, nil, 0, nil); err != nil {
		return spent, fmt.Errorf("wait for shim: %w", err)
	}
	actions, err := os.ReadFile(file)
	if err != nil {
		return spent, err
	}
	fields := strings.Fields(string(actions))
	if len(fields) != 2 {
		return spent, fmt.Errorf("%d actions of the shim were metered, not start and delete", len(fields))
	}
	for i, action := range []*time.Duration{&spent.start, &spent.remove} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return spent, err
		}
		*action = time.Duration(n)
	}
	return spent, nil
}

package reaper

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is a process to start.
type Command struct {
	Path  string     // the program: absolute, or a name that is looked up in PATH
	Args  []string   // its arguments, without the program's own name
	Env   []string   // its whole environment
	Dir   string     // its working directory; empty: ours
	Files []*os.File // its descriptors 0, 1, 2, …; nil stands for /dev/null
	// DieWithParent has the kernel kill it when we die, so that a dead shim leaves no half-done
	// command behind. The kernel takes the death of the thread that started it for ours
	// (contract T27): no thread may end otherwise than by ShedThreads.
	DieWithParent bool
}

// Start starts cmd in a process group of its own and with no other descriptors than its Files,
// which stay the caller's. The exit of the process comes by the Child alone.
func Start(cmd *Command) (*Child, error) {
	if err := Init(); err != nil {
		return nil, err
	}
	path, err := LookPath(cmd.Path)
	if err != nil {
		return nil, err
	}
	null := 0
	if !stdinIsNull() {
		if null, err = openNull(); err != nil {
			return nil, err
		}
		defer unix.Close(null) //nolint:errcheck // nothing was written
	}
	fds, err := descriptors(cmd.Files, null)
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{
		Dir:   cmd.Dir,
		Env:   cmd.Env,
		Files: fds,
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if cmd.DieWithParent {
		attr.Sys.Pdeathsig = syscall.SIGKILL
	}
	defer table.end(table.begin())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := table.tie()
	pid, err := table.fork(path, append([]string{cmd.Path}, cmd.Args...), attr)
	runtime.KeepAlive(cmd.Files)
	if err != nil {
		table.mu.Lock()
		defer table.mu.Unlock()
		table.untie(thread)
		return nil, fmt.Errorf("exec: %q: %w", cmd.Path, err)
	}
	return table.name(pid, thread)
}

// stdinIsNull tells whether our descriptor 0 is /dev/null, for reading and writing, as that of the daemon is.
var stdinIsNull = sync.OnceValue(func() bool {
	var in, null unix.Stat_t
	if unix.Fstat(0, &in) != nil || unix.Stat(os.DevNull, &null) != nil {
		return false
	}
	flags, err := unix.FcntlInt(0, unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR && in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == null.Rdev
})

// openNull opens /dev/null without asking Go's poller whether it has use for it, as os.OpenFile does in five
// calls of the kernel.
func openNull() (int, error) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	return fd, nil
}

// descriptors returns the numbers of at least three files. It does not change their blocking
// mode, which os.File.Fd may do.
func descriptors(files []*os.File, null int) ([]uintptr, error) {
	fds := make([]uintptr, max(3, len(files)))
	for i := range fds {
		if i >= len(files) || files[i] == nil {
			fds[i] = uintptr(null)
			continue
		}
		f := files[i]
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, fmt.Errorf("hand over %s: %w", f.Name(), err)
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = fd }); err != nil {
			return nil, fmt.Errorf("hand over %s: %w", f.Name(), err)
		}
	}
	return fds, nil
}

// errNotInPath has the words that dockerd matches to answer exit code 127 (managers.md).
var errNotInPath = errors.New("executable file not found in $PATH")

// LookPath finds the program name as a shell would: in PATH, unless it holds a slash. It does not
// look whether a name with a slash exists. What was found is found again as long as it is there, even if another
// one of that name has come into a directory before.
func LookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if last := found.Load(); last != nil && last.name == name && executable(last.path) == nil {
		return last.path, nil
	}
	path, err := search(name)
	if err != nil {
		return "", fmt.Errorf("exec: %q: %w", name, err)
	}
	found.Store(&program{name, path})
	return path, nil
}

// program is a program that LookPath has found.
type program struct{ name, path string }

// found is the last one. A PATH of ten directories takes 20 µs to search, a fiftieth of an exec.
var found atomic.Pointer[program]

// search goes through PATH.
func search(name string) (string, error) {
	err := errNotInPath
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir == "" {
			continue // the working directory is never meant
		}
		path := filepath.Join(dir, name)
		switch problem := executable(path); {
		case problem == nil:
			return path, nil
		case errors.Is(problem, fs.ErrPermission):
			err = problem
		}
	}
	return "", err
}

// executable returns nil for a program, fs.ErrPermission for a file that is none, and errNotInPath otherwise.
func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errNotInPath
	}
	if st.Mode&0o111 == 0 {
		return fs.ErrPermission
	}
	return nil
}

// sealDescriptors marks every descriptor above 2 close-on-exec. Go does so with all that it
// opens; this is about those that were open before the program began.
func sealDescriptors() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Linux before 5.11 does not know the flag.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list our descriptors: %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// catchIgnored catches the signals that whoever started us has us ignore, as nohup(1) does, and
// drops them. We still ignore them, but exec resets a caught signal to its default, so that a
// container does not ignore the hang-up of its terminal. Other signals than these Go catches
// anyway.
func catchIgnored() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// helperLimit bounds a FUSE helper. It daemonises as soon as the filesystem answers, so it takes
// longer only if it hangs; kubelet gives up on the whole Create after two minutes.
const helperLimit = time.Minute

// killLimit is how long a killed helper may take to die. It takes for ever if it waits for a
// filesystem that does not answer; the reaper will have it when it is through with that.
const killLimit = 5 * time.Second

// isFUSE tells whether a program must be run to mount the type, as opposed to the type "fuse",
// for which the program's end of the connection is already open.
func isFUSE(fstype string) bool {
	return strings.HasPrefix(fstype, "fuse.") || strings.HasPrefix(fstype, "fuse3.")
}

// mountFUSE runs mount.fuse(8), or mount.fuse3 for types that begin so. The filesystem's program
// stays behind in the background and ends when it is unmounted.
func (s *stack) mountFUSE(m Mount, o *options, at *os.File) error {
	path, err := realPath(at)
	if err != nil {
		return err
	}
	version, program, _ := strings.Cut(m.Type, ".")
	args := []string{m.Source, path}
	for _, option := range o.named {
		args = append(args, "-o", option)
	}
	args = append(args, "-t", program)
	before, err := mountsOn(path)
	if err != nil {
		return err
	}
	failed := runHelper("mount."+version, args)
	after, err := mountsOn(path)
	if err != nil {
		return err
	}
	if after > before {
		// Also if it failed: then it was killed, or fell over, after it had mounted.
		s.paths = append(s.paths, path)
	}
	if failed == nil && after <= before {
		return fmt.Errorf("mount.%s said that it succeeded but nothing is mounted", version)
	}
	return failed
}

// mountsOn counts what is mounted on path, one on top of the other.
func mountsOn(path string) (int, error) {
	points, err := pointsBelow(path)
	n := 0
	for _, p := range points {
		if p.path == path {
			n++
		}
	}
	return n, err
}

// unmountFUSE has fusermount(1) unmount path. It may do so for an ordinary user, who may not.
func unmountFUSE(path string) error {
	err := runHelper("fusermount3", []string{"-u", path})
	if err != nil {
		err = runHelper("fusermount", []string{"-u", path})
	}
	return err
}

// runHelper runs a program to its end. The error of one that failed ends with its own last words.
func runHelper(name string, args []string) error {
	// A file, not a pipe: a daemon that it leaves behind may hold its output open for ever, and
	// would be killed by a pipe that nobody reads.
	fd, err := unix.MemfdCreate("output of "+name, unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make room for the output of %s: %w", name, err)
	}
	output := os.NewFile(uintptr(fd), "output of "+name)
	defer output.Close() //nolint:errcheck // read only by us
	child, err := reaper.Start(&reaper.Command{
		Path:          name,
		Args:          args,
		Env:           os.Environ(),
		Files:         []*os.File{nil, output, output},
		DieWithParent: true,
	})
	if err != nil {
		return err
	}
	if err := await(child, helperLimit); err != nil {
		return fmt.Errorf("%s %w%s", name, err, lastLine(output))
	}
	return nil
}

// await waits for a helper to end, and kills it after limit. The error reads as what it did.
func await(child *reaper.Child, limit time.Duration) error {
	if ends(child, limit) {
		if exit := child.Exit(); exit.Status != 0 {
			return fmt.Errorf("ended with status %d", exit.Status)
		}
		return nil
	}
	// Its group: between a FUSE program and us there may be a shell.
	err := child.SignalGroup(syscall.SIGKILL)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("took more than %v and cannot be killed: %w", limit, err)
	}
	if !ends(child, killLimit) {
		return fmt.Errorf("took more than %v and does not even die; its pid is %d", limit, child.Pid())
	}
	return fmt.Errorf("took more than %v and was killed", limit)
}

func ends(child *reaper.Child, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-child.Done():
		return true
	case <-timer.C:
		return false
	}
}

// lastLine returns the last line of what was written to f, after a colon, if there is any.
func lastLine(f *os.File) string {
	buf := make([]byte, 4096)
	end, err := f.Seek(0, 1)
	if err != nil {
		return ""
	}
	n, _ := f.ReadAt(buf, max(0, end-int64(len(buf)))) // io.EOF, since it ends there
	text := strings.TrimSpace(string(buf[:n]))
	if text == "" {
		return ""
	}
	return ": " + text[strings.LastIndexByte(text, '\n')+1:]
}

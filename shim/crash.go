package shim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/internal/bundle"
)

const (
	// crashFile is in the bundle that the daemon was started for. It holds the stack of a panic
	// that nobody has caught, and nothing while all is well: the log may be full, or nobody reads it.
	crashFile = "panic.log"
	// maxCrash is how much of that is reported: the message, and the innermost frames.
	maxCrash = 4 << 10
)

// catchCrashes has the Go runtime write there what it writes when it gives up, beside standard
// error. The file is removed by the function that is returned, if it is empty.
func catchCrashes(dir string) (done func(), err error) {
	path := filepath.Join(dir, crashFile)
	// Somebody may have put a link or a FIFO there.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := bundle.Regular(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	// The runtime has a descriptor of its own.
	if err := errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()); err != nil {
		return nil, err
	}
	return func() {
		if info, err := os.Lstat(path); err == nil && info.Size() == 0 {
			_ = os.Remove(path) // nobody minds an empty file
		}
	}, nil
}

// reportCrash returns as an error what a daemon has left there that ended by a panic; nil if none has.
func reportCrash(dir string) error {
	path := filepath.Join(dir, crashFile)
	f, err := bundle.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(f, maxCrash))
		err = errors.Join(err, f.Close())
	}
	if err == nil && len(text) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot tell why the shim has crashed: %w", err)
	}
	return fmt.Errorf("the shim has crashed, which is a bug in it: report this, the whole of it is in %s: %s",
		path, strings.TrimSpace(string(text)))
}

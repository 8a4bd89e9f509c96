package mount

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// layers are the options of an overlay with lowerdirs that are relative to base.
type layers struct {
	base string   // a parent of all lowerdirs
	data []string // all options, in order
}

const lowerdir = "lowerdir="

// relativeLayers makes the options of an overlay shorter. It cannot if there is no lowerdir, if
// they have only the root directory in common, or if a path is not plain and absolute.
func relativeLayers(data []string) (layers, bool) {
	last := -1
	for i, s := range data {
		name, value, _ := strings.Cut(s, "=")
		switch name {
		case "lowerdir":
			last = i // the kernel, too, takes the last one
		case "upperdir", "workdir", "lowerdir+", "datadir+":
			if !strings.HasPrefix(value, "/") {
				return layers{}, false // it would mean another directory then
			}
		}
	}
	if last < 0 {
		return layers{}, false
	}
	dirs := splitDirs(strings.TrimPrefix(data[last], lowerdir))
	base, ok := commonParent(dirs)
	if !ok {
		return layers{}, false
	}
	for i, dir := range dirs {
		if dir != "" {
			dirs[i] = strings.TrimLeft(strings.TrimPrefix(dir, base), "/")
		}
	}
	data = slices.Clone(data)
	data[last] = lowerdir + strings.Join(dirs, ":")
	return layers{base: unquote(base), data: data}, true
}

// splitDirs splits a list of lowerdirs at its colons. A colon after a backslash belongs to a
// name; an empty element means that data-only layers follow. Joined by colons they are the list.
func splitDirs(list string) []string {
	var dirs []string
	start := 0
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case '\\':
			i++
		case ':':
			dirs = append(dirs, list[start:i])
			start = i + 1
		}
	}
	return append(dirs, list[start:])
}

// unquote removes the backslashes that overlay takes as quotes.
func unquote(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out = append(out, s[i])
	}
	return string(out)
}

// commonParent returns the longest path that is a proper parent of all dirs, by name.
func commonParent(dirs []string) (string, bool) {
	base := ""
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if !strings.HasPrefix(dir, "/") || slices.Contains(strings.Split(dir, "/"), "..") || strings.Contains(dir, `\/`) {
			return "", false
		}
		parent := dir[:strings.LastIndexByte(strings.TrimRight(dir, "/"), '/')+1]
		if parent == "" {
			return "", false // the root directory has none
		}
		if base == "" {
			base = parent
		}
		for !strings.HasPrefix(parent, base) {
			base = base[:strings.LastIndexByte(base[:len(base)-1], '/')+1]
		}
	}
	base = strings.TrimRight(base, "/")
	return base, base != ""
}

// mount calls mount, with the shortened options, where the lowerdirs are relative to base.
func (l layers) mount(mount func(data string) error) error {
	base, err := openPath(unix.AT_FDCWD, l.base, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open %s: %w", l.base, err)
	}
	defer base.Close() //nolint:errcheck // nothing was written
	return inDirectory(base, func() error { return mount(strings.Join(l.data, ",")) })
}

// inDirectory runs call with dir as the working directory of its thread alone.
//
// Why not the new mount API: its lowerdir+ needs Linux 6.7 and takes at most 255 bytes a layer,
// so this would be needed beside it, and all overlays that containerd makes fit into a page this
// way.
//
// The thread is kept: if it ended, the kernel would take that for the death of the parent and
// kill the runtime commands that were started from it (Pdeathsig, contract T27), of which only
// reaper.ShedThreads knows. Afterwards it differs from the others only in that it would not
// notice if they changed directory.
func inDirectory(dir *os.File, call func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err, lost := callIn(dir, call)
		result <- err
		if lost {
			// No way back, so neither may Go use the thread for anything else nor may it end.
			select {}
		}
		runtime.UnlockOSThread()
	}()
	return <-result
}

// callIn is inDirectory on a locked thread. lost tells that the thread is not back where it was.
func callIn(dir *os.File, call func() error) (err error, lost bool) {
	home, err := openPath(unix.AT_FDCWD, ".", unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open the working directory: %w", err), false
	}
	defer home.Close() //nolint:errcheck // nothing was written
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("give a thread a working directory of its own: %w", err), false
	}
	if err := unix.Fchdir(int(dir.Fd())); err != nil {
		return fmt.Errorf("change directory to %s: %w", dir.Name(), err), false
	}
	err = call()
	back := unix.Fchdir(int(home.Fd()))
	if back != nil && err == nil {
		err = fmt.Errorf("change directory back: %w", back)
	}
	return err, back != nil
}

package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxHolders is how many processes an error names: enough to see a pattern.
const maxHolders = 3

// holders describes processes that have something of dir in use, as far as we may see. It is for
// error messages: a process may have let go by the time that it is named.
func holders(dir string) []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // then nobody can be named
	}
	var all []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		proc := filepath.Join("/proc", e.Name())
		if how := usage(proc, dir); how != "" {
			all = append(all, fmt.Sprintf("pid %d (%s: %s)", pid, comm(proc), how))
		}
		if len(all) == maxHolders {
			break
		}
	}
	return all
}

// usage tells in what way the process uses something of dir, or nothing if it does not or has
// ended.
func usage(proc, dir string) string {
	for _, link := range []struct{ name, how string }{
		{"cwd", "working directory"},
		{"root", "root directory"},
		{"exe", "program"},
	} {
		if path, err := os.Readlink(filepath.Join(proc, link.name)); err == nil && below(path, dir) {
			return link.how
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		path, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err == nil && below(path, dir) {
			return "descriptor " + fd.Name()
		}
	}
	return ""
}

// comm is the name that the kernel knows a process by.
func comm(proc string) string {
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil {
		return "ended"
	}
	return strings.TrimSpace(string(name))
}

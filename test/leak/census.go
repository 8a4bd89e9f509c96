package leak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Census is what a process holds.
type Census struct {
	Pid     int
	Threads int
	Ptmx    int            // pty masters; one per terminal is right
	Kinds   map[string]int // open descriptors by kind, such as pipe, fifo, socket, eventpoll, file
	Links   []string       // each descriptor: its number and what /proc says that it is
}

// Descriptors returns how many there are.
func (c Census) Descriptors() int { return len(c.Links) }

// String is one line without Links.
func (c Census) String() string {
	kinds := make([]string, 0, len(c.Kinds))
	for kind, n := range c.Kinds {
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, n))
	}
	sort.Strings(kinds)
	return fmt.Sprintf("pid %d: %d threads, %d descriptors (%s)",
		c.Pid, c.Threads, c.Descriptors(), strings.Join(kinds, ", "))
}

// Process counts what a process holds, as seen from outside. The caller must be allowed to look:
// root, or the same user.
func Process(pid int) (Census, error) {
	s, err := readStat(pid)
	if err != nil {
		return Census{}, fmt.Errorf("take census of pid %d: %w", pid, err)
	}
	fds, err := openDescriptors(pid)
	if err != nil {
		return Census{}, fmt.Errorf("take census of pid %d: %w", pid, err)
	}
	c := Census{Pid: pid, Threads: s.threads, Kinds: map[string]int{}}
	for _, fd := range fds {
		c.Kinds[fd.kind]++
		if fd.kind == "ptmx" {
			c.Ptmx++
		}
		c.Links = append(c.Links, fd.number+" "+fd.link)
	}
	return c, nil
}

type descriptor struct {
	number, link, kind string
}

// openDescriptors returns the open descriptors of a process. Those that are opened or closed
// meanwhile may be missing.
func openDescriptors(pid int) ([]descriptor, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	own := fmt.Sprintf("/proc/%d/fd", os.Getpid())
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var found []descriptor
	for _, e := range entries {
		path := dir + "/" + e.Name()
		link, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) || link == own {
			continue // closed meanwhile, or the directory that we are reading
		}
		if err != nil {
			return nil, err
		}
		found = append(found, descriptor{number: e.Name(), link: link, kind: kindOf(path, link)})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].link < found[j].link })
	return found, nil
}

// kindOf names the kind of a descriptor. What has no name in the file system is told by its link,
// the rest by its inode: the path of a pty master, for one, depends on the mounts of its opener.
func kindOf(path, link string) string {
	if kind, ok := strings.CutPrefix(link, "anon_inode:"); ok {
		return strings.Trim(kind, "[]")
	}
	if kind, _, ok := strings.Cut(link, ":["); ok {
		return kind // pipe, socket, and the namespaces
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "unknown"
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFCHR:
		return deviceKind(unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return "other"
}

// deviceKind names the character devices that matter (devices.txt of the kernel).
func deviceKind(major, minor uint32) string {
	switch {
	case major == 5 && minor == 2:
		return "ptmx"
	case major >= 136 && major <= 143:
		return "pts"
	case major == 1 && minor == 3:
		return "null"
	}
	return "device"
}

// descriptors looks for open descriptors of this process that were not there before.
func descriptors(w *Watch) {
	startPoller()
	before := count(ownLinks())
	w.add("descriptors", func() []string {
		var found []string
		now := count(ownLinks())
		for link, n := range now {
			if n > before[link] {
				found = append(found, fmt.Sprintf("%s: %d, before %d", link, n, before[link]))
			}
		}
		sort.Strings(found)
		return found
	})
}

// startPoller makes the Go runtime open the descriptors that it opens once, when first needed, and
// keeps.
func startPoller() {
	r, w, err := os.Pipe()
	if err != nil {
		return // the count will show what is wrong
	}
	r.Close()
	w.Close()
}

func ownLinks() []string {
	fds, err := openDescriptors(os.Getpid())
	if err != nil {
		return []string{"cannot be read: " + err.Error()}
	}
	links := make([]string, len(fds))
	for i, fd := range fds {
		links[i] = fd.link
	}
	return links
}

func count(names []string) map[string]int {
	n := map[string]int{}
	for _, name := range names {
		n[name]++
	}
	return n
}

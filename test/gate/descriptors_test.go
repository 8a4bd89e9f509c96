package gate

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What a descriptor is for. What is not in the table has no business in a shim.
const (
	nothing   = "input or output of a daemon that has none"
	log       = "log FIFO of the manager"
	panicLog  = "file for Go's last words"
	listener  = "socket that it listens on"
	conn      = "connection of the manager"
	publisher = "connection to the events server"
	poller    = "epoll of the Go runtime"
	deaths    = "signalfd that tells of the end of children"
	waker     = "eventfd by which the Go runtime wakes its epoll"
	oomCount  = "the kernel's count of OOM kills"
	oomNotice = "eventfd that tells of OOM (cgroup v1)"
	stdin     = "standard input of the container"
	stdout    = "standard output of the container"
	stderr    = "standard error of the container"
)

// mayHold says how many a shim may hold of each purpose. A container that has its client's FIFO
// itself may do without the shim's end; a container on a kernel without memory cgroups has no OOM kills.
var mayHold = map[string]struct{ least, most int }{
	nothing: {2, 3}, log: {1, 2}, panicLog: {0, 1}, listener: {1, 1}, conn: {1, 1}, publisher: {0, 1},
	poller: {1, 1}, deaths: {1, 1}, waker: {1, 1}, oomCount: {0, 1}, oomNotice: {0, 1},
	stdin: {0, 1}, stdout: {0, 1}, stderr: {0, 1},
}

// A descriptor is one, with what /proc says that it is.
type descriptor struct{ number, link, purpose string }

// descriptors demands that every descriptor of every shim has a purpose, and that there are no more
// than are needed for it.
func descriptors(t *testing.T, all []idler) {
	for _, s := range all {
		found, err := hold(s)
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		var table strings.Builder
		for _, d := range found {
			count[d.purpose]++
			fmt.Fprintf(&table, "%3s %-50s %s\n", d.number, d.purpose, d.link)
			if d.purpose == "" {
				t.Errorf("descriptor %s of an idle shim is %s, which is none of what a shim needs: a leak,\n"+
					"or something new that descriptors_test.go has to know. Look for who opens it and does not close it", d.number, d.link)
			}
		}
		for purpose, may := range mayHold {
			if n := count[purpose]; n < may.least || n > may.most {
				t.Errorf("an idle shim has %d of: %s; want %d to %d. Look at who opens those, and at the list below",
					n, purpose, may.least, may.most)
			}
		}
		if len(found) > maxDescriptors {
			t.Errorf("an idle shim with one container has %d descriptors, more than %d: the kernel keeps memory for each",
				len(found), maxDescriptors)
		}
		if t.Failed() {
			t.Fatalf("descriptors of pid %d:\n%s", s.Pid(), &table)
		}
		if s == all[0] {
			t.Logf("%d descriptors:\n%s", len(found), &table)
		}
	}
}

// hold returns the descriptors of a shim.
func hold(s idler) ([]descriptor, error) {
	dir := fmt.Sprintf("/proc/%d/fd", s.Pid())
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []descriptor
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, descriptor{number: e.Name(), link: link})
	}
	events, err := polled(s.Pid(), all)
	if err != nil {
		return nil, err
	}
	sockets, err := unixSockets()
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].purpose = purpose(s, all[i], events, sockets)
	}
	return all, nil
}

// purpose says what a descriptor is for; "" if it is not known.
func purpose(s idler, d descriptor, events map[string]string, sockets map[string]socket) string {
	switch d.link {
	case os.DevNull:
		return nothing
	case filepath.Join(s.Config.Bundle, "log"):
		return log
	case filepath.Join(s.Config.Bundle, "panic.log"):
		return panicLog
	case s.io.Stdin:
		return stdin
	case s.io.Stdout:
		return stdout
	case s.io.Stderr:
		return stderr
	case "anon_inode:[eventpoll]":
		return poller
	case "anon_inode:[signalfd]":
		return deaths
	case "anon_inode:[eventfd]":
		// Go waits for its own without EPOLLET, as nobody else does for anything.
		if flags := events[d.number]; flags != "" && len(flags) < 8 {
			return waker
		}
		return oomNotice
	}
	if base := filepath.Base(d.link); strings.HasPrefix(d.link, "/sys/fs/cgroup/") &&
		slices.Contains([]string{"memory.events", "memory.events.local", "memory.oom_control"}, base) {
		return oomCount
	}
	if !strings.HasPrefix(d.link, "socket:") {
		return ""
	}
	return sockets[d.link].purpose(strings.TrimPrefix(s.Result.Address, "unix://"))
}

// epollEntry is what a descriptor of an epoll says of another: its number, and what is waited for
// in hexadecimal digits, of which EPOLLET is the highest of 32 bits.
var epollEntry = regexp.MustCompile(`tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)`)

// polled returns what is waited for on each descriptor that a process has in an epoll.
func polled(pid int, all []descriptor) (map[string]string, error) {
	events := map[string]string{}
	for _, d := range all {
		if d.link != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, d.number))
		if err != nil {
			return nil, err
		}
		for _, m := range epollEntry.FindAllStringSubmatch(string(info), -1) {
			events[m[1]] = m[2]
		}
	}
	return events, nil
}

// A socket is what the kernel says of one in the file system (/proc/net/unix, see proc(5)).
type socket struct{ state, path string }

// purpose says what a stream socket of a shim is for whose address is known.
func (s socket) purpose(address string) string {
	const listening, connected = "01", "03"
	switch {
	case s == socket{listening, address}:
		return listener
	case s == socket{connected, address}:
		return conn
	case s == socket{connected, ""}:
		return publisher // what it has connected itself has no name
	}
	return ""
}

// unixSockets returns all sockets in the file system, by the link of their descriptors.
func unixSockets() (map[string]socket, error) {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	const stream = "0001"
	all := map[string]socket{}
	for line := range strings.Lines(string(data)) {
		// Num RefCount Protocol Flags Type St Inode Path
		f := append(strings.Fields(line), "")
		if len(f) < 8 || f[4] != stream {
			continue
		}
		state := f[5]
		if f[3] == "00010000" { // __SO_ACCEPTCON
			state = "01"
		}
		all["socket:["+f[6]+"]"] = socket{state, f[7]}
	}
	return all, nil
}

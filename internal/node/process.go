package node

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	shimPrefix = "containerd-shim-"
	// tick is the unit in which the kernel tells user space times (USER_HZ): the same on all
	// architectures that containers run on.
	tick          = time.Second / 100
	removedSuffix = " (deleted)" // of a link in /proc to what has been unlinked
)

// errGone says that a process has ended.
var errGone = errors.New("the process has ended")

// table is the process table, and the sockets that are listened on.
type table struct {
	root      string
	boot      time.Time
	shims     []Shim
	listening map[uint64]string // path by inode; abstract names begin with @
}

func readTable(ctx context.Context, root string) (*table, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	t := &table{root: root, boot: bootTime(root), listening: map[uint64]string{}}
	versions := map[string]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s, ok := t.read(pid); ok {
			s.Version = versionOf(root, &s, versions)
			t.shims = append(t.shims, s)
		}
	}
	// After the processes: what one of them listens on must not be missed.
	t.readListening(filepath.Join(root, "net/unix"))
	for i := range t.shims {
		// One that lives in another network namespace has a list of its own.
		if !slices.ContainsFunc(t.shims[i].inodes, func(n uint64) bool { return t.listening[n] != "" }) {
			t.readListening(filepath.Join(root, strconv.Itoa(t.shims[i].Pid), "net/unix"))
		}
	}
	return t, nil
}

// bootTime is when the kernel's clock of processes began, zero if it does not tell.
func bootTime(root string) time.Time {
	stat, err := os.ReadFile(filepath.Join(root, "stat"))
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(stat)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				return time.Unix(n, 0)
			}
		}
	}
	return time.Time{}
}

// read returns the process pid if it is the daemon of a shim, and alive.
func (t *table) read(pid int) (Shim, bool) {
	dir := filepath.Join(t.root, strconv.Itoa(pid))
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Shim{}, false
	}
	s, ok := parseCommandLine(line)
	if !ok {
		return Shim{}, false
	}
	stat, err := readStat(t.root, pid)
	if err != nil {
		return Shim{}, false
	}
	s.Pid, s.start, s.Threads = pid, stat.start, stat.threads
	if !t.boot.IsZero() {
		s.Started = t.boot.Add(time.Duration(stat.start) * tick)
	}
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		s.Exe = strings.TrimSuffix(exe, removedSuffix)
	}
	if cwd, err := os.Readlink(filepath.Join(dir, "cwd")); err == nil && cwd != "/" {
		s.home = cwd
	}
	s.Memory = readMemory(filepath.Join(dir, "smaps_rollup"))
	s.readFiles(filepath.Join(dir, "fd"))
	s.readEnvironment(filepath.Join(dir, "environ"))
	// If the pid has another owner by now, any of the above may be that one's.
	again, err := readStat(t.root, pid)
	return s, err == nil && again.start == stat.start
}

// parseCommandLine recognizes the daemon of a shim: its program is called containerd-shim-SOMETHING,
// it has an id, and no action, which would make it a short-lived helper of a manager.
func parseCommandLine(line []byte) (Shim, bool) {
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	name := filepath.Base(args[0])
	if !strings.HasPrefix(name, shimPrefix) {
		return Shim{}, false
	}
	s := Shim{Exe: args[0]}
	values := map[string]*string{
		"namespace": &s.Namespace, "id": &s.ID, "address": &s.Manager,
		"publish-binary": new(string), "bundle": new(string), "socket": new(string), "debug-socket": new(string),
	}
	for rest := args[1:]; len(rest) > 0; rest = rest[1:] {
		flag := strings.TrimPrefix(strings.TrimPrefix(rest[0], "-"), "-")
		if flag == rest[0] {
			return Shim{}, false // an action
		}
		key, value, joined := strings.Cut(flag, "=")
		to, known := values[key]
		switch {
		case !known: // a switch
		case joined:
			*to = value
		case len(rest) > 1:
			*to, rest = rest[1], rest[1:]
		}
	}
	s.Group = s.ID
	return s, s.ID != ""
}

// stat is what we need of /proc/PID/stat.
type stat struct {
	threads int
	start   uint64
}

// readStat returns errGone for a process that is not there, or has ended and waits to be reaped.
func readStat(root string, pid int) (stat, error) {
	data, err := os.ReadFile(filepath.Join(root, strconv.Itoa(pid), "stat"))
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return stat{}, err
		}
		return stat{}, errGone
	}
	return parseStat(data)
}

// parseStat reads "pid (name) state …" (proc(5)). The name may hold blanks and parentheses.
func parseStat(data []byte) (stat, error) {
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("read state of process: %d fields are too few", len(fields))
	}
	threads, err := strconv.Atoi(fields[17])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return stat{}, fmt.Errorf("read state of process: %w", err)
	}
	// Of a process that ends its first thread may be dead, and others not.
	if fields[0] == "X" || fields[0] == "Z" && threads <= 1 {
		return stat{}, errGone
	}
	return stat{threads, start}, nil
}

// readMemory adds up what smaps_rollup says; zero if it may not be read.
func readMemory(path string) (m Memory) {
	data, err := os.ReadFile(path)
	if err != nil {
		return m
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "Rss:":
			m.Resident = n << 10
		case "Pss:":
			m.Proportional = n << 10
		case "Private_Dirty:":
			m.PrivateDirty = n << 10
		}
	}
	return m
}

// readFiles counts descriptors, and notes the inodes of those that are sockets, by their numbers. Our
// shims work in no bundle, but have their logs in one.
func (s *Shim) readFiles(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.Files = -1
		return
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { // as numbers
		return cmp.Or(cmp.Compare(len(a.Name()), len(b.Name())), cmp.Compare(a.Name(), b.Name()))
	})
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		s.Files++
		if text, ok := strings.CutPrefix(to, "socket:["); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64); err == nil {
				s.inodes = append(s.inodes, n)
			}
		}
		path := strings.TrimSuffix(to, removedSuffix)
		if base := filepath.Base(path); s.home == "" && (base == "log" || base == "panic.log") && filepath.Base(filepath.Dir(path)) == s.ID {
			s.home = filepath.Dir(path)
		}
	}
}

// readEnvironment notes what the start action of our shims tells the daemon.
func (s *Shim) readEnvironment(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	for _, variable := range strings.Split(string(data), "\x00") {
		switch name, value, _ := strings.Cut(variable, "="); name {
		case "HOLDFAST_SOCKET":
			s.socket = value
		case "HOLDFAST_GROUP":
			s.group = value
		}
	}
}

// readListening adds the sockets of a list like /proc/net/unix that are listened on.
func (t *table) readListening(path string) {
	f, err := os.Open(path)
	if err != nil {
		return // no such kernel, or the process has ended
	}
	defer f.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if inode, name, ok := parseListening(lines.Text()); ok {
			t.listening[inode] = name
		}
	}
}

// accepting is the flag of a socket that is listened on (__SO_ACCEPTCON, proc(5)).
const accepting = 1 << 16

// parseListening reads "Num: RefCount Protocol Flags Type St Inode Path". A path may hold blanks.
func parseListening(line string) (inode uint64, name string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return 0, "", false
	}
	flags, err := strconv.ParseUint(fields[3], 16, 64)
	if err != nil || flags&accepting == 0 {
		return 0, "", false
	}
	inode, err = strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return 0, "", false
	}
	_, name, _ = strings.Cut(line, " "+fields[6]+" ")
	return inode, name, name != ""
}

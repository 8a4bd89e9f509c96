package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// stat is what we need of /proc/<pid>/stat (proc(5)).
type stat struct {
	pid, parent int
	name        string
	state       byte
	threads     int
	started     string // in clock ticks since boot: pid and start together name a process for good
}

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

func (s stat) String() string {
	line := fmt.Sprintf("pid %d (%s) state %c", s.pid, s.name, s.state)
	if s.dead() {
		return line + ", nobody has waited for it"
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.pid))
	if err != nil {
		return line
	}
	return line + ": " + strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
}

// readStat returns what the kernel says of pid.
func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

// parseStat parses the line. The name may itself have spaces and parentheses: it ends with the
// last one.
func parseStat(line string) (stat, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("parse process status %q: no name", line)
	}
	fields := strings.Fields(line[end+1:]) // from the third on
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("parse process status %q: %d fields after the name", line, len(fields))
	}
	s := stat{name: line[open+1 : end], state: fields[0][0], started: fields[19]}
	for _, n := range []struct {
		to   *int
		text string
	}{{&s.pid, strings.TrimSpace(line[:open])}, {&s.parent, fields[1]}, {&s.threads, fields[17]}} {
		v, err := strconv.Atoi(n.text)
		if err != nil {
			return stat{}, fmt.Errorf("parse process status %q: %w", line, err)
		}
		*n.to = v
	}
	return s, nil
}

// children looks for children, dead or alive, that were not there before.
func children(w *Watch) {
	before := map[stat]bool{}
	for _, s := range childrenOf(os.Getpid()) {
		before[identity(s)] = true
	}
	w.add("children", func() []string {
		var found []string
		for _, s := range childrenOf(os.Getpid()) {
			if !before[identity(s)] {
				found = append(found, s.String())
			}
		}
		return found
	})
}

// identity returns the part of s that stays the same for all the life of a process.
func identity(s stat) stat { return stat{pid: s.pid, started: s.started} }

// childrenOf returns the children of a process, by pid. Those that come or go meanwhile may be
// missing.
func childrenOf(parent int) []stat {
	paths, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good: there is no other error
	var found []stat
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && s.parent == parent {
			found = append(found, s)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].pid < found[j].pid })
	return found
}

// Pid makes a Watch require that a process ends which runs now: a shim, or something in a
// container. A zombie has ended; it is the affair of its parent.
func Pid(pid int) Option {
	return func(w *Watch) {
		before, err := readStat(pid)
		if err != nil {
			return // gone already
		}
		w.add("processes", func() []string {
			now, err := readStat(pid)
			if err != nil || now.dead() || now.started != before.started {
				return nil
			}
			return []string{now.String()}
		})
	}
}

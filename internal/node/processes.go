package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticks is how many a second has in /proc/PID/stat, on every architecture that Go knows (USER_HZ).
const ticks = 100

// processes returns the shims in a process table, without their bundles, and adds what is found about sockets
// to known.
func processes(ctx context.Context, proc string, known spaces) ([]Shim, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	boot, err := bootTime(proc)
	if err != nil {
		return nil, err
	}
	var shims []Shim
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir := filepath.Join(proc, e.Name())
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		s, ok := parseArguments(cmdline)
		if !ok {
			continue
		}
		s.Pid = pid
		if s.look(dir, boot) == nil {
			s.Address = known.address(dir)
			shims = append(shims, s)
		}
	}
	return shims, nil
}

// parseArguments tells whether a command line is that of a shim that serves: it has the flags that
// managers give it, and none of the actions.
func parseArguments(cmdline []byte) (Shim, bool) {
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	found := map[string]string{}
	for args = args[1:]; len(args) > 0; args = args[1:] {
		if !strings.HasPrefix(args[0], "-") {
			return Shim{}, false // start, delete; or another program
		}
		name, value, given := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		if !given && name != "debug" && name != "v" && len(args) > 1 {
			args = args[1:]
			value = args[0]
		}
		found[name] = value
	}
	s := Shim{Namespace: found["namespace"], Group: found["id"], Manager: found["address"]}
	return s, s.Namespace != "" && s.Group != "" && s.Manager != ""
}

// look reads what a process is and has. It fails if the process has ended.
func (s *Shim) look(dir string, boot time.Time) error {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return err
	}
	// "pid (name) state …"; the name may hold anything. After it num_threads is the 18th field,
	// starttime the 20th (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return fmt.Errorf("process %d has ended", s.Pid)
	}
	s.Threads, _ = strconv.Atoi(fields[17]) // the kernel writes numbers
	began, _ := strconv.ParseInt(fields[19], 10, 64)
	s.Started = boot.Add(time.Duration(began) * time.Second / ticks)
	s.Program, _ = os.Readlink(filepath.Join(dir, "exe"))
	s.Program = strings.TrimSuffix(s.Program, " (deleted)")
	if files, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		s.Files = len(files)
	}
	memory, _ := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	s.Private = number(memory, "Private_Dirty:") << 10
	return nil
}

// number returns the one in the line of text that begins with name, or 0.
func number(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(f[0], 10, 64) // the kernel writes numbers
				return n
			}
		}
	}
	return 0
}

// bootTime returns when the machine was started, to which starttime is relative.
func bootTime(proc string) (time.Time, error) {
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read when the machine was started: %w", err)
	}
	return time.Unix(number(stat, "btime "), 0), nil
}

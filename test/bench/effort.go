package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An effort is how much is measured.
type effort struct {
	n     int           // lives of each side
	idle  time.Duration // how long a shim is left alone before its memory is looked at
	watch time.Duration // how long its context switches are counted
	few   int           // execs before the memory is looked at again
	many  int           // execs before the threads are counted again; 0: they are not
	crowd int           // shims whose memory is added up
	kills int           // kills of each side

	limit  time.Duration // for all of it; 0: none
	rounds int           // of output in each mode; twice as many of echoes
}

var (
	fullEffort = effort{
		n: 50, idle: 35 * time.Second, watch: time.Minute, few: 200, many: 1000, crowd: 50, kills: 200, rounds: 15,
	}
	quickEffort = effort{
		n: 10, idle: 5 * time.Second, watch: 10 * time.Second, few: 50, crowd: 10, kills: 30, rounds: 1,
		limit: 100 * time.Second,
	}
)

// scale makes an effort one of n lives, and everything else in proportion; 0 leaves it as it is.
func (e *effort) scale(n int, idle time.Duration) {
	if n > 0 {
		for _, count := range []*int{&e.few, &e.many, &e.crowd, &e.kills, &e.rounds} {
			*count = (*count*n + e.n - 1) / e.n
		}
		e.n = n
	}
	if idle > 0 {
		e.watch, e.idle = min(e.watch, idle), idle
	}
}

// counts puts counts into the names of rows.
func (e *effort) counts() *strings.Replacer {
	many := "many"
	if e.many > 0 {
		many = strconv.Itoa(e.many)
	}
	return strings.NewReplacer("{few}", strconv.Itoa(e.few), "{many}", many, "{crowd}", strconv.Itoa(e.crowd))
}

// inMemory is a directory that is not on a disk, as /run is where containerd keeps its bundles and
// runc its state; "", the usual place for such files, if there is none.
func inMemory() string {
	for _, dir := range []string{"/run", "/dev/shm"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
			return dir
		}
	}
	return ""
}

// partNames lists the parts.
func partNames() string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func (b *bench) sideNames() []string {
	var names []string
	for _, c := range b.shims {
		names = append(names, c.name)
	}
	return append(names, bareName)
}

// conditions are what whoever repeats the measurement has to know.
func (b *bench) conditions(quick bool) map[string]string {
	version, _ := exec.Command(b.runtime, "--version").Output()
	first, _, _ := strings.Cut(string(version), "\n")
	load, _ := os.ReadFile("/proc/loadavg")
	var name unix.Utsname
	_ = unix.Uname(&name) // it cannot fail
	state := b.dir + ", in memory"
	if !strings.HasPrefix(b.dir, inMemory()) || inMemory() == "" {
		state = b.dir + ", on a disk: times are those of the disk too"
	}
	all := map[string]string{
		"bundles and state":  state,
		"CPUs":               fmt.Sprint(runtime.NumCPU()),
		"Go of the client":   runtime.Version(),
		"kernel":             unix.ByteSliceToString(name.Release[:]),
		"load at the start":  strings.TrimSpace(string(load)),
		"lives of each side": fmt.Sprintf("%d, and %d kills", b.n, b.kills),
		"left alone for":     fmt.Sprintf("%v, context switches counted for %v", b.idle, b.watch),
		"runtime":            first,
	}
	for _, c := range b.shims {
		all["shim "+c.name] = c.path
	}
	if quick {
		all["quick"] = "too few samples for a judgement, and theirs has had no time to tidy up its memory"
	}
	return all
}

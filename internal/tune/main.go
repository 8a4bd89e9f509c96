// Command tune writes the few files of Go's own runtime that the shim is built with a line or two
// changed in, for the option -overlay of go build, and prints the name of the file that the option wants.
// See docs/decisions/0009. It changes what each change of the table says and nothing else, and fails
// where Go's source is not as the table expects it.
//
//	tune "$(go env GOROOT)" "$(go env GOVERSION)" "$(go env GOCACHE)"
//
// The files are below Go's build cache, under a name of their content. Any number of builds may run at once.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// change replaces a text in a file of Go's runtime.
type change struct {
	file     string
	old, new string
	times    int // how often old is there
}

var changes = []change{
	// The collector keeps four sets of spans for each of 136 classes, and never returns their memory: 6 KiB
	// for one span in a set, which is enough for a heap of 1 GiB. A shim's has 8 MiB at most, of a few hundred
	// spans. The lists grow when they have to.
	{"mspanset.go", "spanSetBlockEntries = 512", "spanSetBlockEntries = 32", 1},
	{"mspanset.go", "spanSetInitSpineCap = 256", "spanSetInitSpineCap = 8", 1},
	// A list's first element is 512 bytes behind its beginning, of which the runtime uses 24.
	{"mspanset.go", "pad [tagAlign - unsafe.Sizeof(spanSetBlockHeader{})]byte", "pad [64 - unsafe.Sizeof(spanSetBlockHeader{})]byte", 1},
	// The marks of a collection come from pieces that are cleared whole, and kept for ever.
	{"mheap.go", "gcBitsChunkBytes = uintptr(64 << 10)", "gcBitsChunkBytes = uintptr(8 << 10)", 1},
	// Stacks come from pieces of memory that hold four sizes, each its own: twice as many, half as big, waste less.
	{"malloc.go", "_StackCacheSize = 32 * 1024", "_StackCacheSize = 16 * 1024", 1},
	// An idle program's monitor wakes up every half of this, to see whether garbage has to be collected, which
	// the shim sees to itself (shim/tidy.go).
	{"proc.go", "forcegcperiod int64 = 2 * 60 * 1e9", "forcegcperiod int64 = 7200 * 1e9", 1},
	// The monitor of one that works wakes up this often, in microseconds, for the first milliseconds of each piece
	// of work, to see whether a goroutine waits in the kernel while others could go on.
	{"proc.go", "delay = 20\n", "delay = 2000\n", 2},
	// Goroutines begin with 8 KiB of stack, not 2, of which half of those that serve a request would copy theirs
	// twice. Go learns the size at each collection, from those that wait then and need little.
	{"stack.go", "startingStackSize uint32 = fixedStack\n", "startingStackSize uint32 = 8192\n", 1},
	{"runtime1.go", "debug.adaptivestackstart = 1 ", "debug.adaptivestackstart = 0 ", 1},
	// One processor (docs/decisions/0007) from the start, whatever the manager has set or the machine has.
	{"proc.go", "procs = int32(n)", "procs = 1", 1},
	{"proc.go", "procs = defaultGOMAXPROCS(numCPUStartup)", "procs = 1", 1},
	// So nobody needs the control group's limit of processors, for which Go reads /proc/self/mountinfo at each
	// start, even where it is told not to use it.
	{"cgroup_linux.go", "func defaultGOMAXPROCSInit() {\n", "func defaultGOMAXPROCSInit() {\n\treturn\n", 1},
	// SIGCHLD is blocked in all threads, for a descriptor that the poller watches (internal/reaper/wake.go), and in no
	// process that is started.
	{"sigtab_linux_generic.go", `{_SigNotify + _SigUnblock + _SigIgn, "SIGCHLD:`, `{_SigNotify + _SigIgn, "SIGCHLD:`, 1},
	{"proc.go", "\tinitSigmask = gp.m.sigmask\n", "\tsigaddset(&gp.m.sigmask, _SIGCHLD)\n\tinitSigmask = gp.m.sigmask\n", 1},
	{"proc.go", "\tmsigrestore(getg().m.sigmask)\n", "\tmask := getg().m.sigmask\n\tsigdelset(&mask, _SIGCHLD)\n\tmsigrestore(mask)\n", 1},
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, `usage: tune "$(go env GOROOT)" "$(go env GOVERSION)" "$(go env GOCACHE)"`)
		os.Exit(2)
	}
	path, err := tune(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot tune Go's runtime: because", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

func tune(root, version, cache string) (string, error) {
	source := filepath.Join(root, "src", "runtime")
	tuned, err := apply(changes, func(file string) ([]byte, error) { return os.ReadFile(filepath.Join(source, file)) })
	if err != nil {
		return "", fmt.Errorf("%w in %s; adapt internal/tune, or build with TUNE=no, which costs memory and time", err, version)
	}
	return store(tuned, source, filepath.Join(cache, "holdfast"))
}

// apply returns the changed files by their names.
func apply(changes []change, read func(file string) ([]byte, error)) (map[string][]byte, error) {
	tuned := map[string][]byte{}
	for _, c := range changes {
		if tuned[c.file] == nil {
			text, err := read(c.file)
			if err != nil {
				return nil, err
			}
			tuned[c.file] = text
		}
		if n := bytes.Count(tuned[c.file], []byte(c.old)); n != c.times {
			return nil, fmt.Errorf("runtime/%s has %q %d times, not %d,", c.file, c.old, n, c.times)
		}
		tuned[c.file] = bytes.ReplaceAll(tuned[c.file], []byte(c.old), []byte(c.new))
	}
	return tuned, nil
}

// store writes the files into a directory of their own below cache, with what -overlay wants to read, and returns
// the name of that.
func store(tuned map[string][]byte, source, cache string) (string, error) {
	sum := fnv.New64a()
	fmt.Fprint(sum, source, tuned) // a map is printed in the order of its keys
	dir := filepath.Join(cache, fmt.Sprintf("tuned-%016x", sum.Sum64()))
	overlay := filepath.Join(dir, "overlay.json")
	if _, err := os.Stat(overlay); err == nil {
		return overlay, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range tuned {
		replace[filepath.Join(source, file)] = filepath.Join(dir, file)
		if err := writeFile(filepath.Join(dir, file), text); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	return overlay, writeFile(overlay, list) // the last: who finds it finds all
}

// writeFile puts a file in place whole.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// What `make density` tells TestDensity.
const (
	densityVariable = "HOLDFAST_DENSITY"      // how many containers
	peerVariable    = "HOLDFAST_DENSITY_PEER" // theirs, or both; else ours
)

// settled is how long idle shims are left alone before they are looked at: containerd's own returns
// memory after half a minute.
const settled = 35 * time.Second

// What a container may need at most, of either side, with its share of containerd and ctr.
const (
	memoryEach  = 24 // MiB
	threadsEach = 24
	filesEach   = 8 // of containerd
)

// TestDensity starts many idle containers, each with a shim of its own, looks at what the shims hold, and
// restarts containerd. It prints figures and judges only whether all are there, before and after.
func TestDensity(t *testing.T) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv(densityVariable), "0"))
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is not a number of containers", densityVariable, os.Getenv(densityVariable))
	}
	if n == 0 {
		t.Skip("takes long: see `make density`")
	}
	sides := map[string][]string{"": {"ours"}, "ours": {"ours"}, "theirs": {"theirs"}, "both": {"ours", "theirs"}}
	chosen, ok := sides[os.Getenv(peerVariable)]
	if !ok {
		t.Fatalf("%s=%q is neither ours nor theirs nor both", peerVariable, os.Getenv(peerVariable))
	}
	usual := patience
	patience = max(usual, time.Duration(n)*time.Second) // one request may be about all of them
	t.Cleanup(func() { patience = usual })
	var figures []density
	for _, side := range chosen {
		ok := t.Run(side, func(t *testing.T) {
			if err := available(t).enough(n); err != nil {
				t.Fatal(err)
			}
			figures = append(figures, crowd(t, side, n))
		})
		if !ok {
			break
		}
	}
	t.Logf("%d containers\n%s", n, table(figures))
}

// A density is what was measured of one side.
type density struct {
	side                 string
	pss, dirty           float64 // MiB, of all shims
	available            float64 // MiB that the machine has less
	threads, descriptors int     // of all shims
	start                time.Duration
	restart              time.Duration // from the start of containerd until it has shown all tasks
	removal              time.Duration // of all
}

// crowd measures one side. Whatever happens, the test's cleanup removes everything.
func crowd(t *testing.T, side string, n int) density {
	c := launch(t, "2.4")
	runtime := c.runtimes()[0].flag
	if side == "theirs" {
		runtime = c.tool("containerd-shim-runc-v2")
	}
	d := density{side: side}
	before := available(t).memory
	began := time.Now()
	var ids []string
	for range n {
		id := c.id()
		if side == "theirs" {
			c.theirs = append(c.theirs, id)
		}
		c.ok(t, "run", "-d", "--runtime", runtime, "--null-io", image, id, "sleep", "100000")
		ids = append(ids, id)
	}
	d.start = time.Since(began)
	allRunning(t, c, n)
	time.Sleep(settled)
	d.available = float64(before - available(t).memory)
	shims := c.shims()
	if len(shims) != n {
		t.Fatalf("%d containers have %d shims, want one each", n, len(shims))
	}
	for _, pid := range shims {
		d.add(t, pid)
	}

	c.stop(t)
	began = time.Now()
	c.start(t)
	allRunning(t, c, n)
	d.restart = time.Since(began)
	after := c.shims()
	if slices.Sort(shims); !slices.Equal(shims, slices.Sorted(slices.Values(after))) {
		t.Errorf("after the restart there are other shims than before: %d, %v", len(after), after)
	}
	began = time.Now()
	for batch := range slices.Chunk(ids, 10) {
		c.ok(t, append([]string{"task", "rm", "-f"}, batch...)...)
		c.ok(t, append([]string{"container", "rm"}, batch...)...)
	}
	d.removal = time.Since(began)
	return d
}

// allRunning waits until containerd, which asks each shim, shows n tasks that run.
func allRunning(t *testing.T, c *containerd, n int) {
	t.Helper()
	eventually(t, func() error {
		if got := strings.Count(c.ok(t, "task", "ls"), "RUNNING"); got != n {
			return fmt.Errorf("%d of %d tasks run", got, n)
		}
		return nil
	})
}

// add adds what a shim holds.
func (d *density) add(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	d.pss += float64(number(t, dir+"smaps_rollup", "Pss:")) / 1024
	d.dirty += float64(number(t, dir+"smaps_rollup", "Private_Dirty:")) / 1024
	d.threads += number(t, dir+"status", "Threads:")
	entries, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	d.descriptors += len(entries)
}

// table shows the figures, for each container where that says more.
func table(all []density) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name, format string, figure func(d density) any) {
		fmt.Fprint(w, name, "\t")
		for _, d := range all {
			fmt.Fprintf(w, format+"\t", figure(d))
		}
		fmt.Fprintln(w)
	}
	row("", "%s", func(d density) any { return d.side })
	row("PSS of all shims, MiB", "%.1f", func(d density) any { return d.pss })
	row("private dirty of all shims, MiB", "%.1f", func(d density) any { return d.dirty })
	row("less memory available, MiB", "%.1f", func(d density) any { return d.available })
	row("threads of all shims", "%d", func(d density) any { return d.threads })
	row("descriptors of all shims", "%d", func(d density) any { return d.descriptors })
	row("start of all by ctr, one after the other", "%v", func(d density) any { return d.start.Round(time.Millisecond) })
	row("restart of containerd until all answer", "%v", func(d density) any { return d.restart.Round(time.Millisecond) })
	row("removal of all by ctr, one after the other", "%v", func(d density) any { return d.removal.Round(time.Millisecond) })
	_ = w.Flush() // a Builder takes all
	return out.String()
}

// resources are what a machine has left.
type resources struct{ memory, threads, files int } // memory in MiB

// enough returns an error if n containers need more.
func (r resources) enough(n int) error {
	for _, need := range []struct {
		what, remedy string
		each, has    int
	}{
		{"MiB of memory", "free some", memoryEach, r.memory},
		{"threads and processes", "raise kernel.pid_max, kernel.threads-max or pids.max", threadsEach, r.threads},
		{"descriptors for containerd", "raise the limit, ulimit -n", filesEach, r.files},
	} {
		if need.each*n > need.has {
			return fmt.Errorf("cannot start %d containers: because they may need %d %s, and there are %d; %s, or ask for at most %d",
				n, need.each*n, need.what, need.has, need.remedy, need.has/need.each)
		}
	}
	return nil
}

// available returns what this machine has left.
func available(t *testing.T) resources {
	t.Helper()
	r := resources{memory: number(t, "/proc/meminfo", "MemAvailable:") / 1024}
	load, err := os.ReadFile("/proc/loadavg") // the fourth field is threads that run / all threads, see proc(5)
	if err != nil {
		t.Fatal(err)
	}
	_, all, _ := strings.Cut(strings.Fields(string(load))[3], "/")
	r.threads = min(limitIn(t, "/proc/sys/kernel/pid_max"), limitIn(t, "/proc/sys/kernel/threads-max"))
	r.threads -= atoi(t, all)
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(group)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if f[1] != "pids" && f[1] != "" {
			continue
		}
		for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids"} {
			for at := filepath.Join(dir, f[2]); at != dir && strings.HasPrefix(at, dir); at = filepath.Dir(at) {
				if _, err := os.Stat(at + "/pids.max"); err == nil {
					r.threads = min(r.threads, limitIn(t, at+"/pids.max")-limitIn(t, at+"/pids.current"))
				}
			}
		}
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	r.files = int(min(files.Max, 1<<30))
	return r
}

// limitIn reads a file that holds a number, or "max".
func limitIn(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.TrimSpace(string(data)); text != "max" {
		return atoi(t, text)
	}
	return 1 << 30
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// number returns the number that follows a name in a file of /proc.
func number(t *testing.T, path, name string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return atoi(t, f[1])
		}
	}
	t.Fatalf("no %s in %s", name, path)
	return 0
}

func TestDensityIsRefusedWhereItDoesNotFit(t *testing.T) {
	plenty := resources{memory: 100 * memoryEach, threads: 100 * threadsEach, files: 100 * filesEach}
	if err := plenty.enough(100); err != nil {
		t.Error(err)
	}
	for word, lack := range map[string]func(*resources){
		"memory": func(r *resources) { r.memory-- }, "pid_max": func(r *resources) { r.threads-- }, "ulimit": func(r *resources) { r.files-- },
	} {
		r := plenty
		lack(&r)
		if err := r.enough(100); err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "at most 99") {
			t.Errorf("got %v, want a refusal that tells of %s, and that 99 would fit", err, word)
		}
	}
	if r := available(t); r.memory <= 0 || r.threads <= 0 || r.files <= 0 {
		t.Errorf("this machine has nothing left: %+v", r)
	}
}

package runc

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/reaper"
)

// fakePath is the scriptable runtime test/fakerunc.
var fakePath string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "runc-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fakePath = filepath.Join(dir, "fakerunc")
	// Before the reaper is on, since os/exec would lose its child to it.
	if out, err := exec.Command("go", "build", "-tags", "no_grpc", "-o", fakePath, "holdfast/test/fakerunc").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build fakerunc: %v\n%s", err, out)
		return 1
	}
	if err := reaper.Init(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// fake returns a Runtime that does as the script says, in a bundle of its own. At the end of the
// test no process may be left and nothing in the bundle but what belongs there.
func fake(t *testing.T, script string) *Runtime {
	t.Helper()
	dir := t.TempDir()
	r := &Runtime{Binary: fakePath, Root: filepath.Join(dir, "root"), Bundle: filepath.Join(dir, "bundle"), ID: "c1"}
	if err := os.Mkdir(r.Bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	rescript(t, r, script)
	t.Cleanup(func() {
		rescript(t, r, "{}")
		deleteAtEnd(t, r)
		poll(t, "all processes to end", func() bool { return len(offspring(t)) == 0 })
	})
	return r
}

// likeness is for the same container, for a test to change.
func likeness(r *Runtime) *Runtime {
	return &Runtime{Binary: r.Binary, Root: r.Root, Bundle: r.Bundle, ID: r.ID, SystemdCgroup: r.SystemdCgroup, Ended: r.Ended}
}

// deleteAtEnd is for cleanups, when the test's context is over.
func deleteAtEnd(t *testing.T, r *Runtime) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Delete(ctx, true); err != nil {
		t.Errorf("delete at the end: %v", err)
	}
	wantFiles(t, r)
}

func rescript(t *testing.T, r *Runtime, script string) {
	t.Helper()
	if _, err := os.Stat(r.Bundle); err != nil {
		return // the test has removed it
	}
	if err := os.WriteFile(filepath.Join(r.Bundle, "fakerunc.json"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantFiles checks that the bundle holds no pid file of an exec, no process file, no socket and no
// log of a single call.
func wantFiles(t *testing.T, r *Runtime) {
	t.Helper()
	entries, err := os.ReadDir(r.Bundle)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "exec.") || strings.HasSuffix(name, ".sock") {
			t.Errorf("%s was left in the bundle", name)
		}
	}
}

// create creates the container, which ends with the test.
func create(t *testing.T, r *Runtime) *reaper.Child {
	t.Helper()
	child, master, err := r.Create(t.Context(), CreateConfig{})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if master != nil {
		t.Error("a console came that nobody asked for")
	}
	endWith(t, child)
	return child
}

// endWith kills the process at the end of the test.
func endWith(t *testing.T, child *reaper.Child) {
	t.Cleanup(func() {
		_ = child.Signal(syscall.SIGKILL)
		waitDone(t, child)
	})
}

func waitDone(t *testing.T, child *reaper.Child) reaper.Exit {
	t.Helper()
	select {
	case <-child.Done():
	case <-time.After(20 * time.Second):
		t.Fatalf("pid %d has not ended", child.Pid())
	}
	return child.Exit()
}

// poll waits until ok holds.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// until returns a context that ends as soon as something holds.
func until(t *testing.T, what string, holds func() bool) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends at the latest with the limit
		defer cancel()
		for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
			if holds() {
				return
			}
		}
		t.Errorf("waited in vain: %s", what)
	}()
	return ctx
}

// exists returns a condition.
func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

// seen is a line that fakerunc has recorded.
type seen struct {
	Verb    string
	Args    []string
	Env     []string
	Dir     string
	Process string
	Mode    fs.FileMode
	Stdin   string
}

// recorded returns the calls that a script has recorded in the file "calls".
func recorded(t *testing.T, r *Runtime) []seen {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.Bundle, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []seen
	for line := range strings.Lines(string(content)) {
		var c seen
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	return calls
}

// offspring returns our children, zombies included.
func offspring(t *testing.T) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the thread is gone
		}
		for _, f := range strings.Fields(string(content)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids
}

// killOffspring kills our children, without waiting for them.
func killOffspring(t *testing.T) {
	for _, pid := range offspring(t) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// descriptors returns what our descriptors are, but for those of the Go runtime.
func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(link, "anon_inode:") || strings.HasPrefix(link, "/proc/") {
			continue
		}
		all = append(all, link)
	}
	sort.Strings(all)
	return all
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: cgroups and mounts")
	}
}

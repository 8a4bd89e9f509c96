package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// The bounds. Each is followed by what was measured when it was set, and by what it is to become. Memory
// is to be bounded anew with each saving.
const (
	maxDirty       = 1100 // KiB; 930 to 950
	maxDirtyAfter  = 1600 // KiB, after manyExecs; 1,320 to 1,420
	maxThreads     = 6    // 5; of a busy machine Go may start one more just when threads are shed
	maxDescriptors = 16   // 16, of which three are the container's FIFOs
	maxSize        = 6000 // KB; 5,968
)

// manyExecs is after how many a shim has collected garbage several times.
const manyExecs = 200

// shims is how many are looked at: the median of them is the figure.
const shims = 5

// quiet is how long they are left alone before. It is no synchronisation: what a shim does by
// itself after its container has started, it has done long before, or it is part of its price.
const quiet = 5 * time.Second

// limit bounds what the preparation of all of them may take, so that a shim that hangs fails the
// test.
const limit = 2 * time.Minute

const shimName = "containerd-shim-holdfast-v2"

// build builds the shim as it is shipped, and has it written to disk: until then its pages are dirty, and
// whoever has them mapped would be charged with them.
func build(t *testing.T) (path string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("make", "-s", "-C", "../..", "build", "VERSION=unknown", "BIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	path = filepath.Join(dir, shimName)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBinaryIsSmall(t *testing.T) {
	info, err := os.Stat(build(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if kb := info.Size() / 1000; kb > maxSize {
		t.Errorf("the shim's binary has %d KB, more than %d: every node reads and caches it, and every start maps it.\n"+
			"Look at what is linked: go list -deps -tags no_grpc ./cmd/%s, and go tool nm -size -sort size of a build without -s -w",
			kb, maxSize, shimName)
	}
}

// An idler is a shim with one container that is left alone, its streams three FIFOs.
type idler struct {
	*client.Session
	io *client.IO
}

// TestIdleShimIsLean looks at shims that have nothing to do. They are there at the same time, so
// that pages of their file are nobody's own, should they be dirty in spite of all.
func TestIdleShimIsLean(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	binary := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var all []idler
	for i := range shims {
		all = append(all, begin(ctx, t, binary, strconv.Itoa(i)))
	}
	time.Sleep(quiet)
	t.Run("memory", func(t *testing.T) { memory(t, all) })
	t.Run("threads", func(t *testing.T) { threads(t, all) })
	t.Run("descriptors", func(t *testing.T) { descriptors(t, all) })
	var execs sync.WaitGroup
	for _, s := range all {
		execs.Go(func() {
			if err := s.execute(ctx, manyExecs); err != nil {
				t.Error(err)
			}
		})
	}
	execs.Wait()
	time.Sleep(quiet)
	t.Run("memory after work", func(t *testing.T) { memoryAfter(t, all) })
}

// execute has n execs run in the container, one after the other.
func (s idler) execute(ctx context.Context, n int) error {
	spec, err := client.ExecSpec(client.BundleConfig{Args: []string{"true"}})
	if err != nil {
		return err
	}
	for i := range n {
		exec := strconv.Itoa(i)
		_, err := s.Exec(ctx, &task.ExecProcessRequest{ID: s.Config.ID, ExecID: exec, Spec: spec})
		if err == nil {
			_, err = s.Start(ctx, &task.StartRequest{ID: s.Config.ID, ExecID: exec})
		}
		if err == nil {
			_, err = s.Wait(ctx, &task.WaitRequest{ID: s.Config.ID, ExecID: exec})
		}
		if err == nil {
			_, err = s.Delete(ctx, &task.DeleteRequest{ID: s.Config.ID, ExecID: exec})
		}
		if err != nil {
			return fmt.Errorf("exec %s: %w", exec, err)
		}
	}
	return nil
}

// begin starts a container on a shim of its own, which lives until the test ends.
func begin(ctx context.Context, t *testing.T, binary, name string) idler {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	id := fmt.Sprintf("gate-%d-%s", os.Getpid(), name)
	bundle := filepath.Join(dir, id)
	if err := client.NewBundle(bundle, client.BundleConfig{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	streams := filepath.Join(dir, "io") // a manager has nothing but bundles beside a bundle
	if err := os.Mkdir(streams, 0o700); err != nil {
		t.Fatal(err)
	}
	io, err := client.OpenIO(streams, "init", client.IOConfig{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(io.Close)
	s, err := client.Launch(ctx, dir, client.StartConfig{
		Binary: binary, ID: id, Bundle: bundle, SocketDir: filepath.Join(dir, "s"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if _, _, err := s.Crash(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	_, err = s.Create(ctx, &task.CreateTaskRequest{
		ID: id, Bundle: bundle, Stdin: io.Stdin, Stdout: io.Stdout, Stderr: io.Stderr,
	})
	if err == nil {
		_, err = s.Start(ctx, &task.StartRequest{ID: id})
	}
	if err == nil {
		_, err = s.Events.Wait(ctx, func(e client.Event) bool { return e.Topic == "/tasks/start" })
	}
	if err != nil {
		t.Fatal(err)
	}
	return idler{s, io}
}

func memory(t *testing.T, all []idler) {
	figures := each(t, all, "smaps_rollup", "Private_Dirty:")
	if got := median(figures); got > maxDirty {
		t.Errorf("an idle shim with one container has %d KiB of private dirty memory (median of %v), more than %d:\n"+
			"every container on a node pays that. It is heap, stacks, data pages written and what the runtime keeps;\n"+
			"the mappings of one, where Private_Dirty is not 0:\n%s",
			got, figures, maxDirty, dirtyMappings(t, all[0].Pid()))
	}
}

func memoryAfter(t *testing.T, all []idler) {
	figures := each(t, all, "smaps_rollup", "Private_Dirty:")
	if got := median(figures); got > maxDirtyAfter {
		t.Errorf("a shim that rests after %d execs has %d KiB of private dirty memory (median of %v), more than %d:\n"+
			"after a health check every ten seconds all shims have. It is what Go's collector keeps (internal/tune), and pieces of\n"+
			"memory that one object holds each (shim/tidy.go); the mappings of one, where Private_Dirty is not 0:\n%s",
			manyExecs, got, figures, maxDirtyAfter, dirtyMappings(t, all[0].Pid()))
	}
}

func threads(t *testing.T, all []idler) {
	figures := each(t, all, "status", "Threads:")
	if got := median(figures); got > maxThreads {
		t.Errorf("an idle shim with one container has %d threads (median of %v), more than %d:\n"+
			"each costs a stack, and Go never ends one. A goroutine that blocks in a system call, not in the poller, holds one;\n"+
			"SIGUSR1 has the shim log its goroutines. Where the threads of one wait in the kernel:\n%s",
			got, figures, maxThreads, waits(all[0].Pid()))
	}
}

// each reads the same figure of all shims.
func each(t *testing.T, all []idler, file, field string) (figures []int) {
	t.Helper()
	for _, s := range all {
		n, err := number(fmt.Sprintf("/proc/%d/%s", s.Pid(), file), field)
		if err != nil {
			t.Fatal(err)
		}
		figures = append(figures, n)
	}
	t.Logf("%s %v", field, figures)
	return figures
}

func median(figures []int) int {
	return slices.Sorted(slices.Values(figures))[len(figures)/2]
}

// number returns the number that follows a name in a file of /proc.
func number(path, name string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, path)
}

// dirtyMappings lists those of a process that hold private dirty pages, with how many KiB.
func dirtyMappings(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	mapping := ""
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(fields[0], "-"):
			mapping = strings.TrimSpace(line)
		case fields[0] == "Private_Dirty:" && fields[1] != "0":
			fmt.Fprintf(&found, "%6s %s\n", fields[1], mapping)
		}
	}
	return found.String()
}

// waits says what each thread of a process waits for. A kernel may keep that to itself.
func waits(pid int) string {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	if err != nil {
		panic(err) // The pattern is a constant.
	}
	var found strings.Builder
	for _, path := range paths {
		what, err := os.ReadFile(path)
		if err != nil {
			what = []byte(err.Error())
		}
		fmt.Fprintf(&found, "%s %s\n", filepath.Base(filepath.Dir(path)), what)
	}
	return found.String()
}

package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// overlay is a set of directories to mount an overlay of.
type overlay struct {
	lower       []string // each with a file "file-N"
	upper, work string
}

func newOverlay(t *testing.T, dir string, layers int, name string) overlay {
	t.Helper()
	o := overlay{upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
	mkdir(t, o.upper)
	mkdir(t, o.work)
	for i := range layers {
		layer := filepath.Join(dir, "layers", fmt.Sprint(i), name)
		write(t, filepath.Join(layer, fmt.Sprintf("file-%d", i)), fmt.Sprint(i))
		o.lower = append(o.lower, layer)
	}
	return o
}

func (o overlay) mount() Mount {
	lower := strings.Join(o.lower, ":")
	return Mount{Type: "overlay", Source: "overlay", Options: []string{
		"index=off", "workdir=" + o.work, "upperdir=" + o.upper, "lowerdir=" + lower,
	}}
}

func wantLayers(t *testing.T, root string, o overlay) {
	t.Helper()
	for i := range o.lower {
		wantContent(t, filepath.Join(root, fmt.Sprintf("file-%d", i)), fmt.Sprint(i))
	}
	write(t, filepath.Join(root, "new"), "content")
	wantContent(t, filepath.Join(o.upper, "new"), "content")
}

func TestOverlayIsMounted(t *testing.T) {
	root, dir := newRoot(t)
	o := newOverlay(t, dir, 3, "fs")
	mountAll(t, root, o.mount())
	wantLayers(t, root, o)
	if table := lowerdirsOf(t, root); !strings.Contains(table, o.lower[0]) {
		t.Errorf("options that fit were changed: %s", table)
	}
}

// lowerdirsOf returns the line of the kernel's table for the mount on path.
func lowerdirsOf(t *testing.T, path string) string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if p, ok := parsePoint(line); ok && p.path == path {
			return line
		}
	}
	t.Fatalf("%s is not mounted", path)
	return ""
}

func TestOverlayOfManyLongNames(t *testing.T) {
	root, dir := newRoot(t)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(dir, strings.Repeat("d", 200), strings.Repeat("e", 200))
	for range 3 { // on threads that are used again
		o := newOverlay(t, deep, 60, "fs")
		if n := len(strings.Join(o.mount().Options, ",")); n < 5*os.Getpagesize() {
			t.Fatalf("options take only %d bytes", n)
		}
		mountAll(t, root, o.mount())
		wantLayers(t, root, o)
		unmount(t, root)
	}
	if now, err := os.Getwd(); err != nil || now != here {
		t.Errorf("working directory is %s, %v", now, err)
	}
}

func TestLongOverlaysAreMountedAtTheSameTime(t *testing.T) {
	var group sync.WaitGroup
	defer group.Wait()
	for range 6 {
		root, dir := newRoot(t)
		o := newOverlay(t, filepath.Join(dir, strings.Repeat("d", 250)), 20, "fs")
		group.Go(func() {
			for range 3 {
				if err := All([]Mount{o.mount(), tmpfs("tmp")}, root); err != nil {
					t.Error(err)
				}
				wantLayers(t, root, o)
				unmount(t, root)
			}
		})
	}
}

func TestOverlayOfTooManyLayersIsRefused(t *testing.T) {
	root, dir := newRoot(t)
	o := newOverlay(t, dir, 60, strings.Repeat("n", 100))
	err := All([]Mount{o.mount()}, root)
	if err == nil || !strings.Contains(err.Error(), "use fewer layers") {
		t.Errorf("error is %v", err)
	}
}

func TestOverlayOfQuotedNames(t *testing.T) {
	root, dir := newRoot(t)
	odd := filepath.Join(dir, strings.Repeat("x", 250), `colon:comma`)
	o := newOverlay(t, odd, 20, `fs:1`)
	m := o.mount()
	quoted := make([]string, len(o.lower))
	for i, l := range o.lower {
		quoted[i] = strings.ReplaceAll(l, ":", `\:`)
	}
	m.Options[len(m.Options)-1] = "lowerdir=" + strings.Join(quoted, ":")
	mountAll(t, root, m)
	wantLayers(t, root, o)
}

// A thread that ends takes the commands with it that were started from it with a parent-death
// signal (contract T27).
func TestLongOverlayDoesNotKillCommands(t *testing.T) {
	root, dir := newRoot(t)
	o := newOverlay(t, filepath.Join(dir, strings.Repeat("d", 250)), 20, "fs")
	tids := map[int]bool{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			err := inDirectory(mustOpen(t, dir), func() error {
				mu.Lock()
				defer mu.Unlock()
				tids[unix.Gettid()] = true
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	// Now threads with a past are as likely as others to start these.
	r, w := blockingPipe(t)
	var children []*reaper.Child
	for range 8 {
		c, err := reaper.Start(&reaper.Command{Path: "cat", Files: []*os.File{r}, DieWithParent: true})
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	r.Close()
	for range 4 {
		mountAll(t, root, o.mount())
		unmount(t, root)
	}
	for tid := range tids {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); err != nil {
			t.Errorf("thread has ended: %v", err)
		}
	}
	w.Close()
	for _, c := range children {
		<-c.Done()
		if c.Exit().Status != 0 {
			t.Errorf("command ended with %+v", c.Exit())
		}
	}
}

func mustOpen(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestThreadComesBackAndOthersStay(t *testing.T) {
	_, dir := newRoot(t)
	here, err := os.Readlink("/proc/thread-self/cwd")
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := 0
	err = inDirectory(mustOpen(t, dir), func() error {
		tid = unix.Gettid()
		if now, err := os.Readlink("/proc/thread-self/cwd"); err != nil || now != dir {
			t.Errorf("call runs in %s, %v", now, err)
		}
		if now, err := os.Readlink("/proc/self/cwd"); err != nil || now != here {
			t.Errorf("others run in %s, %v", now, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.Readlink(fmt.Sprintf("/proc/self/task/%d/cwd", tid))
	if err != nil || now != here {
		t.Errorf("thread is in %s, %v", now, err)
	}
}

func TestLayersBecomeRelative(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string // separated by spaces
		base string // "" if it cannot be done
		want string
	}{
		{"usual", "index=off lowerdir=/s/12/fs:/s/1/fs upperdir=/s/13/fs", "/s", "index=off lowerdir=12/fs:1/fs upperdir=/s/13/fs"},
		{"similar names", "lowerdir=/s/ab:/s/ac", "/s", "lowerdir=ab:ac"},
		{"one", "lowerdir=/s/a", "/s", "lowerdir=a"},
		{"nested", "lowerdir=/s/a/b:/s/a", "/s", "lowerdir=a/b:a"},
		{"same", "lowerdir=/s/a:/s/a", "/s", "lowerdir=a:a"},
		{"slashes", "lowerdir=/s//a/:/s/b", "/s", "lowerdir=a/:b"},
		{"data only", "lowerdir=/s/a:/s/b::/s/c", "/s", "lowerdir=a:b::c"},
		{"quoted", `lowerdir=/s\:x/a\:1:/s\:x/b`, "/s:x", `lowerdir=a\:1:b`},
		{"last counts", "lowerdir=/x lowerdir=/s/a:/s/b", "/s", "lowerdir=/x lowerdir=a:b"},
		{"none", "upperdir=/a", "", ""},
		{"empty", "lowerdir=", "", ""},
		{"only / in common", "lowerdir=/a/x:/b/x", "", ""},
		{"in /", "lowerdir=/a", "", ""},
		{"/ itself", "lowerdir=/", "", ""},
		{"/ and others", "lowerdir=/:/s/a", "", ""},
		{"relative", "lowerdir=a:b", "", ""},
		{"dots", "lowerdir=/s/a/../b:/s/a/c", "", ""},
		{"quoted slash", `lowerdir=/s/a\/b:/s/a\/c`, "", ""},
		{"relative upper", "lowerdir=/s/a:/s/b upperdir=u", "", ""},
		{"relative work", "lowerdir=/s/a:/s/b workdir=w", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := relativeLayers(strings.Split(c.in, " "))
			if ok != (c.base != "") {
				t.Fatalf("can be done: %v", ok)
			}
			if !ok {
				return
			}
			if diff := cmp.Diff([]string{c.base, c.want}, []string{got.base, strings.Join(got.data, " ")}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzRelativeLayers(f *testing.F) {
	for _, s := range []string{"/s/a:/s/b", "/a", "/s/a::/s/b", `/s\:/a:/s\:/b`, "/s//a:/s/b/", "/s/a:/s", `\`, "/:/", "//a:/a", "/:/0/00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := relativeLayers([]string{"lowerdir=" + s})
		if !ok {
			return
		}
		before := splitDirs(s)
		after := splitDirs(strings.TrimPrefix(l.data[0], "lowerdir="))
		if len(before) != len(after) {
			t.Fatalf("%d layers became %d: %q", len(before), len(after), l.data[0])
		}
		for i := range before {
			if before[i] == "" && after[i] == "" {
				continue
			}
			want := filepath.Clean(unquote(before[i]))
			if got := filepath.Join(l.base, unquote(after[i])); got != want || strings.HasPrefix(after[i], "/") || after[i] == "" {
				t.Errorf("layer %q became %q in %q", before[i], after[i], l.base)
			}
		}
	})
}

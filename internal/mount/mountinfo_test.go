package mount

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTableOfMountsIsReadWhole(t *testing.T) {
	long := strings.Repeat("lowerdir=/very/long:", 10000)
	table := `22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt/with\040space rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue
37 35 98:0 / /mnt/with\040space/in\134side rw - overlay overlay rw,` + long + `
38 35 98:0 / /mnt/with\040spaceless rw - tmpfs tmpfs rw
39 35 98:0 / /mnt/with\040space rw - fuse.x - rw
garbage
40 35 98:0 / /mnt/with\040space/last rw - tmpfs tmpfs rw`
	got, err := readPoints(strings.NewReader(table), "/mnt/with space")
	if err != nil {
		t.Fatal(err)
	}
	want := []point{
		{36, 35, "/mnt/with space", "ext3"},
		{37, 35, `/mnt/with space/in\side`, "overlay"},
		{39, 35, "/mnt/with space", "fuse.x"},
		{40, 35, "/mnt/with space/last", "tmpfs"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(point{})); diff != "" {
		t.Error(diff)
	}
}

func TestBelowStopsAtNames(t *testing.T) {
	for _, c := range []struct {
		path, root string
		want       bool
	}{
		{"/a/b", "/a/b", true},
		{"/a/b/c", "/a/b", true},
		{"/a/bc", "/a/b", false},
		{"/a", "/a/b", false},
		{"/a", "/", true},
		{"/", "/", true},
		{"socket:[1]", "/", false},
	} {
		if got := below(c.path, c.root); got != c.want {
			t.Errorf("below(%q, %q) is %v", c.path, c.root, got)
		}
	}
}

func TestOddNamesAreFoundInTheTable(t *testing.T) {
	root, _ := newRoot(t)
	for _, name := range []string{"sp ace", "tab\there", "new\nline", `back\slash`, `\040`, "hash#", "ünï"} {
		dir := filepath.Join(root, name)
		mkdir(t, dir)
		mountAll(t, dir, tmpfs(""))
		if got := listPoints(t, dir); len(got) != 1 {
			t.Errorf("%q: found %v", name, got)
		}
		unmount(t, dir)
	}
}

func TestTreesFollowIDsNotNames(t *testing.T) {
	points := []point{
		{1, 1, "/", "rootfs"}, {2, 1, "/r", "before"}, {3, 2, "/r/x", "before"},
		{4, 2, "/r", "ours"}, {5, 4, "/r/x", "with it"}, {6, 5, "/r/x/y", "with it"}, {7, 4, "/r", "ours"},
		{8, 99, "/r/x", "of nobody"},
	}
	ours := topmost(points, []string{"/r", "/r"})
	if diff := cmp.Diff(map[int]bool{4: true, 7: true}, ours); diff != "" {
		t.Error(diff)
	}
	want := slices.Clone(points[3:7])
	if diff := cmp.Diff(want, trees(points, ours), cmp.AllowUnexported(point{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzUnescape(f *testing.F) {
	for _, s := range []string{"", `\040`, `a\134b`, `\`, `\0`, `\400`, `\377`, `\08`, "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// The kernel's side of it, seq_path: these four, in octal.
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
		if got := unescape(escaped); got != s {
			t.Errorf("%q became %q and then %q", s, escaped, got)
		}
		if got := unescape(s); len(got) > len(s) {
			t.Errorf("%q grew to %q", s, got)
		}
		p, ok := parsePoint("1 2 0:1 / /" + escaped + " rw - tmpfs tmpfs rw")
		if ok && !strings.HasPrefix(p.path, "/") {
			t.Errorf("a relative mount point: %q", p.path)
		}
	})
}

// TestOwnTableIsReadable tries again when somebody else mounts meanwhile.
func TestOwnTableIsReadable(t *testing.T) {
	read := func() string {
		raw, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		before := read()
		points, err := pointsBelow("/")
		if err != nil || len(points) == 0 {
			t.Fatalf("%v, %v", points, err)
		}
		if before != read() {
			continue
		}
		if lines := strings.Count(before, "\n"); lines != len(points) {
			t.Errorf("%d lines, %d points", lines, len(points))
		}
		return
	}
	t.Error("the table of mounts was never the same twice in a row")
}

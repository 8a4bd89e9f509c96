package mount

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// point is a mount and the place where it is.
type point struct {
	id, parent int    // of the mount; the kernel uses an id again when its mount is gone
	path       string // absolute, as we see it
	fstype     string
}

// pointsBelow returns what is mounted at root and below it, in the order of the kernel's table:
// what was mounted later comes later. root is absolute, clean and free of symlinks.
func pointsBelow(root string) ([]point, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	points, err := readPoints(f, root)
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	return points, nil
}

func readPoints(r io.Reader, root string) ([]point, error) {
	var all []point
	// Not a Scanner: a line names all layers of an overlay and has no useful limit.
	lines := bufio.NewReaderSize(r, 16<<10)
	for {
		line, err := lines.ReadString('\n')
		if p, ok := parsePoint(line); ok && below(p.path, root) {
			all = append(all, p)
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// parsePoint reads a line of proc_pid_mountinfo(5). The first two fields are the ids, the fifth
// is the mount point; an unknown number of fields follows, then a lone dash and the type.
func parsePoint(line string) (point, bool) {
	front, back, ok := strings.Cut(line, " - ")
	fields := strings.Fields(front)
	if !ok || len(fields) < 6 {
		return point{}, false
	}
	id, err := strconv.Atoi(fields[0])
	if err != nil {
		return point{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return point{}, false
	}
	fstype, _, _ := strings.Cut(back, " ")
	return point{id: id, parent: parent, path: unescape(fields[4]), fstype: unescape(fstype)}, true
}

// topmost returns the ids of the mounts that are reached at paths: of a path that occurs n times
// the n topmost.
func topmost(points []point, paths []string) map[int]bool {
	ids := map[int]bool{}
	for _, path := range paths {
		for _, p := range slices.Backward(points) {
			if p.path == path && !ids[p.id] {
				ids[p.id] = true
				break
			}
		}
	}
	return ids
}

// trees returns those of points that have one of the ids, or are mounted inside one that does.
func trees(points []point, ids map[int]bool) []point {
	parents := make(map[int]int, len(points))
	for _, p := range points {
		parents[p.id] = p.parent
	}
	inside := func(id int) bool {
		// Bounded, since the root of all mounts may be its own parent.
		for range points {
			if ids[id] {
				return true
			}
			parent, known := parents[id]
			if !known {
				return false
			}
			id = parent
		}
		return false
	}
	return slices.DeleteFunc(points, func(p point) bool { return !inside(p.id) })
}

// unescape undoes the kernel's escaping: a backslash and three octal digits stand for one byte.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if b, ok := octal(s[i:]); ok {
			out = append(out, b)
			i += 3
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// octal reads an escape at the beginning of s.
func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] > '3' {
		return 0, false
	}
	var b byte
	for _, c := range []byte(s[1:4]) {
		if c < '0' || c > '7' {
			return 0, false
		}
		b = b<<3 | (c - '0')
	}
	return b, true
}

// below tells whether path is root or inside it. Both are absolute and clean.
func below(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/' || root == "/")
}

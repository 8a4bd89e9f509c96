package cgroup

import (
	"bytes"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// membership is a line of /proc/<pid>/cgroup: which group of one hierarchy a process is in
// (cgroups(7)). The path starts at the root of the reader's cgroup namespace.
type membership struct {
	unified     bool
	controllers []string // "name=…" for a version 1 hierarchy without controllers
	path        string
}

// parseMemberships reads the content of /proc/<pid>/cgroup. Lines that it does not understand
// are left out.
func parseMemberships(b []byte) []membership {
	var all []membership
	for line := range strings.Lines(string(b)) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		names, path, ok := strings.Cut(rest, ":")
		if _, err := strconv.ParseUint(id, 10, 32); err != nil || !ok || !strings.HasPrefix(path, "/") {
			continue
		}
		m := membership{unified: names == "", path: path}
		if !m.unified {
			m.controllers = strings.Split(names, ",")
		} else if id != "0" {
			continue // a version 1 hierarchy always has controllers or a name
		}
		all = append(all, m)
	}
	return all
}

// mount is a place where a hierarchy, or the part of it below root, is mounted.
type mount struct {
	unified bool
	options []string // of the superblock: the controllers of a version 1 hierarchy are among them
	root    string
	point   string
}

// parseMounts reads the content of /proc/<pid>/mountinfo (proc_pid_mountinfo(5)) and keeps
// what is cgroupfs.
func parseMounts(b []byte) []mount {
	var all []mount
	for line := range bytes.Lines(b) {
		before, after, ok := bytes.Cut(line, []byte(" - cgroup"))
		if !ok {
			continue
		}
		where := strings.Fields(string(before))
		what := strings.Fields("cgroup" + string(after))
		if len(where) < 6 || len(what) < 2 {
			continue
		}
		m := mount{unified: what[0] == "cgroup2", root: unescape(where[3]), point: unescape(where[4])}
		if !m.unified && what[0] != "cgroup" || !strings.HasPrefix(m.root, "/") {
			continue
		}
		m.options = strings.Split(what[len(what)-1], ",")
		all = append(all, m)
	}
	return all
}

// unescape undoes the octal escapes with which mountinfo writes space, tab, newline and
// backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// carries tells whether m shows the hierarchy that the membership is in.
func (m mount) carries(of membership) bool {
	if m.unified || of.unified {
		return m.unified && of.unified
	}
	return slices.Contains(m.options, of.controllers[0])
}

// directory returns where under m the group with the given path is. It is false if the group
// lies outside of what m shows: outside of a bind mount's root, or of our cgroup namespace, for
// which the kernel writes "/..".
func (m mount) directory(path string) (string, bool) {
	rest := path
	if m.root != "/" {
		var ok bool
		if rest, ok = strings.CutPrefix(path, m.root); !ok || rest != "" && rest[0] != '/' {
			return "", false
		}
	}
	if slices.Contains(strings.Split(rest, "/"), "..") {
		return "", false
	}
	return filepath.Join(m.point, rest), true
}

// within tells whether the group path is at or below top.
func within(path, top string) bool {
	rest, ok := strings.CutPrefix(path, top)
	return ok && (rest == "" || rest[0] == '/' || top == "/")
}

package cgroup

import (
	"bytes"
	"strings"

	"google.golang.org/protobuf/proto"
)

// Stats returns what the kernel has counted for the group: Metrics of
// github.com/containerd/cgroups/v3/cgroup2/stats if unified, else of cgroup1/stats. These are the
// two messages that the clients of containerd decode (contract 3.10).
//
// It works as long as the group exists, even if no process is left in it; after that the error is
// ErrGone. A container without a group of its own has no statistics either: those of the group
// that it shares would be taken for its own.
//
// A figure that cannot be read, for want of the controller, of a newer kernel or of permission,
// is left out: the other figures are worth more than an error.
func (g *Group) Stats() (proto.Message, error) {
	if g == nil {
		return nil, ErrGone
	}
	if g.unified {
		return g.stats2()
	}
	return g.stats1()
}

// number returns the figure in a file, 0 if there is none.
func (d *dir) number(name string) uint64 {
	b, err := d.readOnce(name, make([]byte, 32))
	if err != nil {
		return 0
	}
	n, _ := parseNumber(b)
	return n
}

// content returns what is in a file, nothing if it cannot be read. It is valid until the next
// read.
func (d *dir) content(name string) []byte {
	b, err := d.read(name)
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(b)
}

// pairs returns the keys and numbers in a file, none if it cannot be read.
func (d *dir) pairs(name string) map[string]uint64 { return parsePairs(d.content(name)) }

// pageSizes returns the sizes of huge pages that the group has figures for, as in the names of
// the files: hugetlb.<size><suffix>.
func (d *dir) pageSizes(suffix string) []string {
	files, err := d.names(".", false)
	if err != nil {
		return nil
	}
	var sizes []string
	for _, name := range files {
		size, ok1 := strings.CutPrefix(name, "hugetlb.")
		size, ok2 := strings.CutSuffix(size, suffix)
		if ok1 && ok2 && !strings.Contains(size, ".") { // "2MB.rsvd" counts reservations
			sizes = append(sizes, size)
		}
	}
	return sizes
}

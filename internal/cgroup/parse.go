package cgroup

import (
	"bytes"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// The parsers take what they know and leave out what they do not, for kernels add keys, lines and
// words, and a word that one version does not know must not cost a user all statistics.

// parseNumber reads a file with one number. "max" is math.MaxUint64, as is what does not fit; a
// negative number is 0.
func parseNumber(b []byte) (uint64, bool) {
	b = bytes.TrimSpace(b)
	if string(b) == "max" {
		return math.MaxUint64, true
	}
	digits, negative := bytes.CutPrefix(b, []byte("-"))
	n, ok := parseDigits(digits)
	if negative {
		n = 0
	}
	return n, ok
}

// parseDigits reads decimal digits; what does not fit is math.MaxUint64.
func parseDigits(b []byte) (uint64, bool) {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if high, low := bits.Mul64(n, 10); high != 0 || low > math.MaxUint64-uint64(c-'0') {
			n = math.MaxUint64
		} else {
			n = low + uint64(c-'0')
		}
	}
	return n, len(b) > 0
}

// parseNumbers reads a list of numbers that are separated by space of any kind.
func parseNumbers(b []byte) []uint64 {
	var all []uint64
	for word := range bytes.FieldsSeq(b) {
		if n, ok := parseNumber(word); ok {
			all = append(all, n)
		}
	}
	return all
}

// parsePids reads cgroup.procs or cgroup.threads. A process outside of our pid namespace, which
// the kernel shows as 0, is left out: for kill(2) that number means something else.
func parsePids(b []byte) []int {
	var all []int
	for word := range bytes.FieldsSeq(b) {
		if pid, err := strconv.ParseInt(string(word), 10, 32); err == nil && pid > 0 {
			all = append(all, int(pid))
		}
	}
	return all
}

// pair is a line of a key and a number.
type pair struct {
	key string
	n   uint64
}

// pairs are the lines of a file. They are few, and each is asked for once: to look through them
// takes less than to make a map.
type pairs []pair

// of returns the number of a key, 0 if it is not there. In line it would cost each shim 30 KB, since
// it is called a hundred times.
//
//go:noinline
func (p pairs) of(key string) uint64 {
	for i := range p {
		if p[i].key == key {
			return p[i].n
		}
	}
	return 0
}

// parsePairs reads lines of a key and a number.
func parsePairs(b []byte) pairs {
	all := make(pairs, 0, bytes.Count(b, []byte("\n"))+1)
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, number := parseNumber([]byte(value)); ok && number {
			all = append(all, pair{key, n})
		}
	}
	return all
}

// device is the number of a block device.
type device struct{ major, minor uint64 }

// parseDevice reads "major:minor".
func parseDevice(s string) (device, bool) {
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return device{a, b}, ok && err1 == nil && err2 == nil
}

// parsePartitions reads /proc/partitions: the paths of block devices. The first name of a device
// counts.
func parsePartitions(b []byte) map[device]string {
	names := map[device]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		dev, ok := parseDevice(f[0] + ":" + f[1])
		if _, known := names[dev]; ok && !known {
			names[dev] = "/dev/" + f[3]
		}
	}
	return names
}

// ioEntry is what io.stat tells of one device, by key.
type ioEntry struct {
	device
	values map[string]uint64
}

// parseIO reads io.stat. Some kernels put a device that has no figures on the same line as the
// next one; so a device counts only once a figure follows.
func parseIO(b []byte) []ioEntry {
	var all []ioEntry
	for line := range strings.Lines(string(b)) {
		var entry ioEntry
		known := false
		for word := range strings.FieldsSeq(line) {
			key, value, pair := strings.Cut(word, "=")
			if !pair {
				if known && len(entry.values) > 0 {
					all = append(all, entry)
				}
				entry = ioEntry{values: map[string]uint64{}}
				entry.device, known = parseDevice(word)
				continue
			}
			if n, ok := parseNumber([]byte(value)); ok && known {
				entry.values[key] = n
			}
		}
		if known && len(entry.values) > 0 {
			all = append(all, entry)
		}
	}
	return all
}

// rdmaEntry is a line of rdma.current or rdma.max.
type rdmaEntry struct {
	device           string
	handles, objects uint32
}

// parseRdma reads rdma.current or rdma.max. "max" is math.MaxUint32.
func parseRdma(b []byte) []rdmaEntry {
	var all []rdmaEntry
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.Contains(f[0], "=") {
			continue
		}
		e := rdmaEntry{device: f[0]}
		for _, word := range f[1:] {
			key, value, _ := strings.Cut(word, "=")
			n, ok := parseNumber([]byte(value))
			switch count := uint32(min(n, math.MaxUint32)); {
			case ok && key == "hca_handle":
				e.handles = count
			case ok && key == "hca_object":
				e.objects = count
			}
		}
		all = append(all, e)
	}
	return all
}

// blkioEntry is a line of a version 1 blkio file; op is empty in files that do not tell
// operations apart.
type blkioEntry struct {
	device
	op    string
	value uint64
}

// parseBlkio reads a version 1 blkio file. The sum over all devices at its end is left out.
func parseBlkio(b []byte) []blkioEntry {
	var all []blkioEntry
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 && len(f) != 3 {
			continue
		}
		dev, ok := parseDevice(f[0])
		n, number := parseNumber([]byte(f[len(f)-1]))
		if !ok || !number {
			continue
		}
		e := blkioEntry{device: dev, value: n}
		if len(f) == 3 {
			e.op = f[1]
		}
		all = append(all, e)
	}
	return all
}

// pressure is a line of a pressure file.
type pressure struct {
	avg10, avg60, avg300 float64 // per cent
	total                uint64  // microseconds
}

// parsePressure reads a pressure file: its lines by their first word, "some" and "full".
func parsePressure(b []byte) map[string]pressure {
	lines := map[string]pressure{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		var p pressure
		for _, word := range f[1:] {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "avg10":
				p.avg10 = parsePercent(value)
			case "avg60":
				p.avg60 = parsePercent(value)
			case "avg300":
				p.avg300 = parsePercent(value)
			case "total":
				p.total, _ = parseNumber([]byte(value))
			}
		}
		lines[f[0]] = p
	}
	return lines
}

// parsePercent reads a decimal number; what is none, or no number, is 0.
func parsePercent(s string) float64 {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0
	}
	return n
}

// parseStatus returns the thread group id from /proc/<tid>/status, 0 if it is not in there.
func parseStatus(b []byte) int {
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(line, []byte("Tgid:")); ok {
			if pids := parsePids(value); len(pids) == 1 {
				return pids[0]
			}
		}
	}
	return 0
}

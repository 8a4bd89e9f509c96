package cgroup

import (
	"errors"
	"strings"
	"time"

	"holdfast/internal/api/stats1"
	"holdfast/internal/api/stats2"
	"holdfast/internal/wire"
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
//
// Whoever asks again within keepFor finds the files still open, which makes it several times as
// quick; they are closed keepFor after the last call.
func (g *Group) Stats() (wire.Message, error) {
	if g == nil {
		return nil, ErrGone
	}
	r, err := g.take()
	if err != nil {
		return nil, err
	}
	var m wire.Message
	if g.unified {
		m, err = r.stats2()
	} else {
		m, err = r.stats1()
	}
	g.put(r, err == nil)
	return m, err
}

// Remains returns the statistics of a group that has gone, of which is known only how many OOM kills
// there were.
func (g *Group) Remains(oomKills uint64) wire.Message {
	if g.Unified() {
		return &stats2.Metrics{
			Pids: &stats2.PidsStat{}, CPU: &stats2.CPUStat{}, Memory: &stats2.MemoryStat{}, Io: &stats2.IOStat{},
			Rdma: &stats2.RdmaStat{}, MemoryEvents: &stats2.MemoryEvents{OomKill: oomKills},
		}
	}
	return &stats1.Metrics{CPU: noCPU(), MemoryOomControl: &stats1.MemoryOomControl{OomKill: oomKills}}
}

const (
	// keepFor is how long files stay open for the next call. Opening and closing one takes several
	// times as long as reading it, but an open one costs the kernel a page and the shim a descriptor:
	// it is for those who watch, not for those who ask every ten seconds.
	keepFor = 2 * time.Second

	// keepBelow bounds the descriptors that may be kept. The system gives out the lowest that is
	// free, so one above says that the shim has many already, and its limit may be 1024.
	keepBelow = 256
)

// reader reads the statistics of a group. It belongs to one call, or to the group between calls.
type reader struct {
	sources []*source
	keep    bool
	timer   *time.Timer // closes the reader when nobody has asked for a while; nil until it is kept
}

// source is one directory with statistics.
type source struct {
	*dir
	controllers []string // of version 1

	pageSizes []string          // of huge pages, once known: a kernel always has the same
	devices   map[device]string // names of block devices, as far as they were asked for
}

// take returns a reader, that of the last call if it is there: then nobody else has it.
func (g *Group) take() (*reader, error) {
	now := time.Now()
	last := g.asked.Swap(&now)
	if r := g.idle.Swap(nil); r != nil {
		return r, nil
	}
	r := &reader{keep: last != nil && now.Sub(*last) < keepFor}
	places := g.v1
	if g.unified {
		places = []*place{g.v2}
	}
	for _, p := range places {
		if p == nil || !p.own || !p.counts() {
			continue
		}
		d, err := p.open()
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			r.close()
			return nil, err
		}
		if r.keep {
			d.kept = map[string]int{}
		}
		r.sources = append(r.sources, &source{dir: d, controllers: p.controllers})
	}
	return r, nil
}

// put keeps a reader for the next call, if it is worth it, or closes it.
func (g *Group) put(r *reader, good bool) {
	if !r.keep || !good {
		go r.close() // takes a fifth of all the time, and nobody waits for it
		return
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(keepFor, func() {
			if g.idle.CompareAndSwap(r, nil) {
				r.close()
			}
		})
	}
	r.timer.Reset(keepFor)
	if !g.idle.CompareAndSwap(nil, r) {
		r.timer.Stop()
		r.close() // calls at the same time: one reader is enough
	}
}

// close closes all files. Nobody uses the reader any more.
func (r *reader) close() {
	for _, s := range r.sources {
		s.close()
	}
}

// number returns the figure in a file, 0 if there is none.
func (d *dir) number(name string) uint64 {
	n, _ := parseNumber(d.content(name))
	return n
}

// pairs returns the keys and numbers in a file, none if it cannot be read.
func (d *dir) pairs(name string) pairs { return parsePairs(d.content(name)) }

// sizes returns the sizes of huge pages that the group has figures for, as in the names of the
// files: hugetlb.<size><suffix>.
func (s *source) sizes(suffix string) []string {
	if len(s.pageSizes) > 0 {
		return s.pageSizes
	}
	files, err := s.names(".", false)
	if err != nil {
		return nil
	}
	for _, name := range files {
		size, ok1 := strings.CutPrefix(name, "hugetlb.")
		size, ok2 := strings.CutSuffix(size, suffix)
		if ok1 && ok2 && !strings.Contains(size, ".") { // "2MB.rsvd" counts reservations
			s.pageSizes = append(s.pageSizes, size)
		}
	}
	return s.pageSizes
}

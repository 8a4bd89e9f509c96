package cgroup

import (
	"holdfast/internal/api/stats2"
	"holdfast/internal/wire"
)

// stats2 reads the statistics of a version 2 group. The parts are there even if their controller
// is not, except MemoryEvents: clients have come to rely on that.
func (r *reader) stats2() (wire.Message, error) {
	if len(r.sources) == 0 {
		return nil, ErrGone
	}
	s := r.sources[0]
	m := &stats2.Metrics{
		Pids:         &stats2.PidsStat{Current: s.number("pids.current"), Limit: s.number("pids.max")},
		CPU:          s.cpu2(),
		Memory:       s.memory2(),
		MemoryEvents: s.memoryEvents(),
		Io:           &stats2.IOStat{Usage: s.io2(), PSI: s.pressure("io.pressure")},
		Rdma:         &stats2.RdmaStat{Current: s.rdma2("rdma.current"), Limit: s.rdma2("rdma.max")},
		Hugetlb:      s.hugetlb2(),
	}
	if !s.alive() {
		return nil, ErrGone // what was read after that is not 0 but unknown
	}
	return m, nil
}

func (d *dir) cpu2() *stats2.CPUStat {
	n := d.pairs("cpu.stat")
	return &stats2.CPUStat{
		UsageUsec:     n.of("usage_usec"),
		UserUsec:      n.of("user_usec"),
		SystemUsec:    n.of("system_usec"),
		NrPeriods:     n.of("nr_periods"),
		NrThrottled:   n.of("nr_throttled"),
		ThrottledUsec: n.of("throttled_usec"),
		NrBursts:      n.of("nr_bursts"),
		BurstUsec:     n.of("burst_usec"),
		PSI:           d.pressure("cpu.pressure"),
	}
}

func (d *dir) memory2() *stats2.MemoryStat {
	n := d.pairs("memory.stat")
	// Linux 5.9 split these two into anon and file; of each, one form is there.
	split := func(key string) uint64 { return n.of(key) + n.of(key+"_anon") + n.of(key+"_file") }
	return &stats2.MemoryStat{
		Usage:        d.number("memory.current"),
		UsageLimit:   d.number("memory.max"),
		MaxUsage:     d.number("memory.peak"),
		SwapUsage:    d.number("memory.swap.current"),
		SwapLimit:    d.number("memory.swap.max"),
		SwapMaxUsage: d.number("memory.swap.peak"),
		PSI:          d.pressure("memory.pressure"),

		Anon:              n.of("anon"),
		File:              n.of("file"),
		KernelStack:       n.of("kernel_stack"),
		Slab:              n.of("slab"),
		SlabReclaimable:   n.of("slab_reclaimable"),
		SlabUnreclaimable: n.of("slab_unreclaimable"),
		Sock:              n.of("sock"),
		Shmem:             n.of("shmem"),
		FileMapped:        n.of("file_mapped"),
		FileDirty:         n.of("file_dirty"),
		FileWriteback:     n.of("file_writeback"),
		AnonThp:           n.of("anon_thp"),
		InactiveAnon:      n.of("inactive_anon"),
		ActiveAnon:        n.of("active_anon"),
		InactiveFile:      n.of("inactive_file"),
		ActiveFile:        n.of("active_file"),
		Unevictable:       n.of("unevictable"),
		Pgfault:           n.of("pgfault"),
		Pgmajfault:        n.of("pgmajfault"),
		Pgrefill:          n.of("pgrefill"),
		Pgscan:            n.of("pgscan"),
		Pgsteal:           n.of("pgsteal"),
		Pgactivate:        n.of("pgactivate"),
		Pgdeactivate:      n.of("pgdeactivate"),
		Pglazyfree:        n.of("pglazyfree"),
		Pglazyfreed:       n.of("pglazyfreed"),
		ThpFaultAlloc:     n.of("thp_fault_alloc"),
		ThpCollapseAlloc:  n.of("thp_collapse_alloc"),

		WorkingsetRefault:     split("workingset_refault"),
		WorkingsetActivate:    split("workingset_activate"),
		WorkingsetNodereclaim: n.of("workingset_nodereclaim"),
	}
}

// memoryEvents is nil without a memory controller.
func (d *dir) memoryEvents() *stats2.MemoryEvents {
	n := d.pairs("memory.events")
	if len(n) == 0 {
		return nil
	}
	return &stats2.MemoryEvents{
		Low:          n.of("low"),
		High:         n.of("high"),
		Max:          n.of("max"),
		Oom:          n.of("oom"),
		OomKill:      n.of("oom_kill"),
		OomGroupKill: n.of("oom_group_kill"),
	}
}

func (d *dir) io2() []*stats2.IOEntry {
	var all []*stats2.IOEntry
	for _, e := range parseIO(d.content("io.stat")) {
		all = append(all, &stats2.IOEntry{
			Major:  e.major,
			Minor:  e.minor,
			Rbytes: e.values["rbytes"],
			Wbytes: e.values["wbytes"],
			Rios:   e.values["rios"],
			Wios:   e.values["wios"],
		})
	}
	return all
}

func (d *dir) rdma2(name string) []*stats2.RdmaEntry {
	var all []*stats2.RdmaEntry
	for _, e := range parseRdma(d.content(name)) {
		all = append(all, &stats2.RdmaEntry{
			Device: e.device, HcaHandles: e.handles, HcaObjects: e.objects,
		})
	}
	return all
}

func (s *source) hugetlb2() []*stats2.HugeTlbStat {
	var all []*stats2.HugeTlbStat
	for _, size := range s.sizes(".current") {
		all = append(all, &stats2.HugeTlbStat{
			Pagesize: size,
			Current:  s.number("hugetlb." + size + ".current"),
			Max:      s.number("hugetlb." + size + ".max"),
			Failcnt:  s.pairs("hugetlb." + size + ".events").of("max"),
		})
	}
	return all
}

// pressure is nil if the kernel does not measure it: the file is missing or cannot be read.
func (d *dir) pressure(name string) *stats2.PSIStats {
	lines := parsePressure(d.content(name))
	if len(lines) == 0 {
		return nil
	}
	message := func(kind string) *stats2.PSIData {
		p, ok := lines[kind]
		if !ok {
			return nil
		}
		return &stats2.PSIData{Avg10: p.avg10, Avg60: p.avg60, Avg300: p.avg300, Total: p.total}
	}
	return &stats2.PSIStats{Some: message("some"), Full: message("full")}
}

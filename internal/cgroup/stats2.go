package cgroup

import (
	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"google.golang.org/protobuf/proto"
)

// stats2 reads the statistics of a version 2 group. The parts are there even if their controller
// is not, except MemoryEvents: clients have come to rely on that.
func (g *Group) stats2() (proto.Message, error) {
	if g.v2 == nil || !g.v2.own {
		return nil, ErrGone
	}
	d, err := g.v2.open()
	if err != nil {
		return nil, err
	}
	defer d.close()
	m := &stats.Metrics{
		Pids:         &stats.PidsStat{Current: d.number("pids.current"), Limit: d.number("pids.max")},
		CPU:          d.cpu2(),
		Memory:       d.memory2(),
		MemoryEvents: d.memoryEvents(),
		Io:           &stats.IOStat{Usage: d.io2(), PSI: d.pressure("io.pressure")},
		Rdma:         &stats.RdmaStat{Current: d.rdma2("rdma.current"), Limit: d.rdma2("rdma.max")},
		Hugetlb:      d.hugetlb2(),
	}
	if !d.alive() {
		return nil, ErrGone // what was read after that is not 0 but unknown
	}
	return m, nil
}

func (d *dir) cpu2() *stats.CPUStat {
	n := d.pairs("cpu.stat")
	return &stats.CPUStat{
		UsageUsec:     n["usage_usec"],
		UserUsec:      n["user_usec"],
		SystemUsec:    n["system_usec"],
		NrPeriods:     n["nr_periods"],
		NrThrottled:   n["nr_throttled"],
		ThrottledUsec: n["throttled_usec"],
		NrBursts:      n["nr_bursts"],
		BurstUsec:     n["burst_usec"],
		PSI:           d.pressure("cpu.pressure"),
	}
}

func (d *dir) memory2() *stats.MemoryStat {
	n := d.pairs("memory.stat")
	// Linux 5.9 split these two into anon and file; of each, one form is there.
	split := func(key string) uint64 { return n[key] + n[key+"_anon"] + n[key+"_file"] }
	return &stats.MemoryStat{
		Usage:        d.number("memory.current"),
		UsageLimit:   d.number("memory.max"),
		MaxUsage:     d.number("memory.peak"),
		SwapUsage:    d.number("memory.swap.current"),
		SwapLimit:    d.number("memory.swap.max"),
		SwapMaxUsage: d.number("memory.swap.peak"),
		PSI:          d.pressure("memory.pressure"),

		Anon:              n["anon"],
		File:              n["file"],
		KernelStack:       n["kernel_stack"],
		Slab:              n["slab"],
		SlabReclaimable:   n["slab_reclaimable"],
		SlabUnreclaimable: n["slab_unreclaimable"],
		Sock:              n["sock"],
		Shmem:             n["shmem"],
		FileMapped:        n["file_mapped"],
		FileDirty:         n["file_dirty"],
		FileWriteback:     n["file_writeback"],
		AnonThp:           n["anon_thp"],
		InactiveAnon:      n["inactive_anon"],
		ActiveAnon:        n["active_anon"],
		InactiveFile:      n["inactive_file"],
		ActiveFile:        n["active_file"],
		Unevictable:       n["unevictable"],
		Pgfault:           n["pgfault"],
		Pgmajfault:        n["pgmajfault"],
		Pgrefill:          n["pgrefill"],
		Pgscan:            n["pgscan"],
		Pgsteal:           n["pgsteal"],
		Pgactivate:        n["pgactivate"],
		Pgdeactivate:      n["pgdeactivate"],
		Pglazyfree:        n["pglazyfree"],
		Pglazyfreed:       n["pglazyfreed"],
		ThpFaultAlloc:     n["thp_fault_alloc"],
		ThpCollapseAlloc:  n["thp_collapse_alloc"],

		WorkingsetRefault:     split("workingset_refault"),
		WorkingsetActivate:    split("workingset_activate"),
		WorkingsetNodereclaim: n["workingset_nodereclaim"],
	}
}

// memoryEvents is nil without a memory controller.
func (d *dir) memoryEvents() *stats.MemoryEvents {
	n := d.pairs("memory.events")
	if len(n) == 0 {
		return nil
	}
	return &stats.MemoryEvents{
		Low:          n["low"],
		High:         n["high"],
		Max:          n["max"],
		Oom:          n["oom"],
		OomKill:      n["oom_kill"],
		OomGroupKill: n["oom_group_kill"],
	}
}

func (d *dir) io2() []*stats.IOEntry {
	var all []*stats.IOEntry
	for _, e := range parseIO(d.content("io.stat")) {
		all = append(all, &stats.IOEntry{
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

func (d *dir) rdma2(name string) []*stats.RdmaEntry {
	var all []*stats.RdmaEntry
	for _, e := range parseRdma(d.content(name)) {
		all = append(all, &stats.RdmaEntry{
			Device: e.device, HcaHandles: e.handles, HcaObjects: e.objects,
		})
	}
	return all
}

func (d *dir) hugetlb2() []*stats.HugeTlbStat {
	var all []*stats.HugeTlbStat
	for _, size := range d.pageSizes(".current") {
		all = append(all, &stats.HugeTlbStat{
			Pagesize: size,
			Current:  d.number("hugetlb." + size + ".current"),
			Max:      d.number("hugetlb." + size + ".max"),
			Failcnt:  d.pairs("hugetlb." + size + ".events")["max"],
		})
	}
	return all
}

// pressure is nil if the kernel does not measure it: the file is missing or cannot be read.
func (d *dir) pressure(name string) *stats.PSIStats {
	lines := parsePressure(d.content(name))
	if len(lines) == 0 {
		return nil
	}
	message := func(kind string) *stats.PSIData {
		p, ok := lines[kind]
		if !ok {
			return nil
		}
		return &stats.PSIData{Avg10: p.avg10, Avg60: p.avg60, Avg300: p.avg300, Total: p.total}
	}
	return &stats.PSIStats{Some: message("some"), Full: message("full")}
}

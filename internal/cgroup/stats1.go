package cgroup

import (
	"errors"
	"math"
	"os"

	"github.com/containerd/cgroups/v3/cgroup1/stats"
	"google.golang.org/protobuf/proto"
)

// readers1 fill in what the controllers of version 1 know.
var readers1 = map[string]func(*dir, *stats.Metrics){
	"cpu":     (*dir).cpu1,
	"cpuacct": (*dir).cpuacct1,
	"memory":  (*dir).memory1,
	"pids":    (*dir).pids1,
	"blkio":   (*dir).blkio1,
	"hugetlb": (*dir).hugetlb1,
	"rdma":    (*dir).rdma1,
}

// tick is the unit of cpuacct.stat in nanoseconds: USER_HZ is 100 on every architecture that
// containers run on.
const tick = 1e9 / 100

// stats1 reads the statistics of a version 1 group. Only the CPU part is always there, with both
// of its parts: clients follow these pointers without a look.
func (g *Group) stats1() (proto.Message, error) {
	m := &stats.Metrics{CPU: &stats.CPUStat{Usage: &stats.CPUUsage{}, Throttling: &stats.Throttle{}}}
	found := false
	for _, p := range g.v1 {
		if !p.own {
			continue
		}
		ok, err := p.stats1(m)
		if err != nil {
			return nil, err
		}
		found = found || ok
	}
	if !found {
		return nil, ErrGone
	}
	return m, nil
}

// stats1 fills in what the controllers of one hierarchy know. It is false if there are none or
// the group has gone.
func (p *place) stats1(m *stats.Metrics) (bool, error) {
	var d *dir
	for _, name := range p.controllers {
		read := readers1[name]
		if read == nil {
			continue
		}
		if d == nil {
			var err error
			if d, err = p.open(); errors.Is(err, ErrGone) {
				return false, nil
			} else if err != nil {
				return false, err
			}
			defer d.close()
		}
		read(d, m)
	}
	return d != nil && d.alive(), nil
}

func (d *dir) cpu1(m *stats.Metrics) {
	n := d.pairs("cpu.stat")
	m.CPU.Throttling.Periods = n["nr_periods"]
	m.CPU.Throttling.ThrottledPeriods = n["nr_throttled"]
	m.CPU.Throttling.ThrottledTime = n["throttled_time"]
}

func (d *dir) cpuacct1(m *stats.Metrics) {
	n := d.pairs("cpuacct.stat")
	m.CPU.Usage.User = n["user"] * tick
	m.CPU.Usage.Kernel = n["system"] * tick
	m.CPU.Usage.Total = d.number("cpuacct.usage")
	m.CPU.Usage.PerCPU = parseNumbers(d.content("cpuacct.usage_percpu"))
}

func (d *dir) pids1(m *stats.Metrics) {
	m.Pids = &stats.PidsStat{Current: d.number("pids.current")}
	// Without a limit clients expect 0 here, unlike with version 2.
	if limit := d.number("pids.max"); limit != math.MaxUint64 {
		m.Pids.Limit = limit
	}
}

func (d *dir) memory1(m *stats.Metrics) {
	n := d.pairs("memory.stat")
	m.Memory = &stats.MemoryStat{
		Usage:     d.memoryEntry("memory."),
		Swap:      d.memoryEntry("memory.memsw."),
		Kernel:    d.memoryEntry("memory.kmem."),
		KernelTCP: d.memoryEntry("memory.kmem.tcp."),

		Cache:        n["cache"],
		RSS:          n["rss"],
		RSSHuge:      n["rss_huge"],
		MappedFile:   n["mapped_file"],
		Dirty:        n["dirty"],
		Writeback:    n["writeback"],
		PgPgIn:       n["pgpgin"],
		PgPgOut:      n["pgpgout"],
		PgFault:      n["pgfault"],
		PgMajFault:   n["pgmajfault"],
		InactiveAnon: n["inactive_anon"],
		ActiveAnon:   n["active_anon"],
		InactiveFile: n["inactive_file"],
		ActiveFile:   n["active_file"],
		Unevictable:  n["unevictable"],

		HierarchicalMemoryLimit: n["hierarchical_memory_limit"],
		HierarchicalSwapLimit:   n["hierarchical_memsw_limit"],

		TotalCache:        n["total_cache"],
		TotalRSS:          n["total_rss"],
		TotalRSSHuge:      n["total_rss_huge"],
		TotalMappedFile:   n["total_mapped_file"],
		TotalDirty:        n["total_dirty"],
		TotalWriteback:    n["total_writeback"],
		TotalPgPgIn:       n["total_pgpgin"],
		TotalPgPgOut:      n["total_pgpgout"],
		TotalPgFault:      n["total_pgfault"],
		TotalPgMajFault:   n["total_pgmajfault"],
		TotalInactiveAnon: n["total_inactive_anon"],
		TotalActiveAnon:   n["total_active_anon"],
		TotalInactiveFile: n["total_inactive_file"],
		TotalActiveFile:   n["total_active_file"],
		TotalUnevictable:  n["total_unevictable"],
	}
	if n := d.pairs("memory.oom_control"); len(n) > 0 {
		m.MemoryOomControl = &stats.MemoryOomControl{
			OomKillDisable: n["oom_kill_disable"],
			UnderOom:       n["under_oom"],
			OomKill:        n["oom_kill"],
		}
	}
}

// memoryEntry reads the four files of one kind of memory. All are 0 where the kernel does not
// account for that kind.
func (d *dir) memoryEntry(prefix string) *stats.MemoryEntry {
	return &stats.MemoryEntry{
		Usage:   d.number(prefix + "usage_in_bytes"),
		Max:     d.number(prefix + "max_usage_in_bytes"),
		Limit:   d.number(prefix + "limit_in_bytes"),
		Failcnt: d.number(prefix + "failcnt"),
	}
}

func (d *dir) hugetlb1(m *stats.Metrics) {
	for _, size := range d.pageSizes(".usage_in_bytes") {
		m.Hugetlb = append(m.Hugetlb, &stats.HugetlbStat{
			Pagesize: size,
			Usage:    d.number("hugetlb." + size + ".usage_in_bytes"),
			Max:      d.number("hugetlb." + size + ".max_usage_in_bytes"),
			Failcnt:  d.number("hugetlb." + size + ".failcnt"),
		})
	}
}

func (d *dir) rdma1(m *stats.Metrics) {
	entries := func(name string) (all []*stats.RdmaEntry) {
		for _, e := range parseRdma(d.content(name)) {
			all = append(all, &stats.RdmaEntry{
				Device: e.device, HcaHandles: e.handles, HcaObjects: e.objects,
			})
		}
		return all
	}
	m.Rdma = &stats.RdmaStat{Current: entries("rdma.current"), Limit: entries("rdma.max")}
}

// blkioSources are the names, around the figure's, of the files that count I/O, depending on who
// schedules it: CFQ (until Linux 5.0), BFQ, or only the throttling layer, which sees everything but
// counted no nested groups until Linux 4.16.
var blkioSources = []struct{ prefix, suffix string }{
	{"blkio.", "_recursive"},
	{"blkio.bfq.", "_recursive"},
	{"blkio.throttle.", "_recursive"},
	{"blkio.throttle.", ""},
}

// blkio1 takes the figures of the first source that has any.
func (d *dir) blkio1(m *stats.Metrics) {
	m.Blkio = &stats.BlkIOStat{}
	for _, from := range blkioSources {
		read := func(figure string) []blkioEntry {
			return parseBlkio(d.content(from.prefix + figure + from.suffix))
		}
		serviced := read("io_serviced")
		if len(serviced) == 0 {
			continue // every source counts these; so it has seen nothing, or does not exist
		}
		names := partitions()
		m.Blkio = &stats.BlkIOStat{
			IoServicedRecursive:     blkio(serviced, names),
			IoServiceBytesRecursive: blkio(read("io_service_bytes"), names),
			IoQueuedRecursive:       blkio(read("io_queued"), names),
			IoServiceTimeRecursive:  blkio(read("io_service_time"), names),
			IoWaitTimeRecursive:     blkio(read("io_wait_time"), names),
			IoMergedRecursive:       blkio(read("io_merged"), names),
			IoTimeRecursive:         blkio(read("time"), names),
			SectorsRecursive:        blkio(read("sectors"), names),
		}
		return
	}
}

// blkio makes the entries of a message.
func blkio(entries []blkioEntry, names map[device]string) []*stats.BlkIOEntry {
	var all []*stats.BlkIOEntry
	for _, e := range entries {
		all = append(all, &stats.BlkIOEntry{
			Op: e.op, Device: names[e.device], Major: e.major, Minor: e.minor, Value: e.value,
		})
	}
	return all
}

// partitions returns the paths of block devices, none if the kernel does not tell.
func partitions() map[device]string {
	b, err := os.ReadFile("/proc/partitions")
	if err != nil {
		return nil
	}
	return parsePartitions(b)
}

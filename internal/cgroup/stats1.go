package cgroup

import (
	"math"
	"os"
	"slices"

	"holdfast/internal/api/stats1"
	"holdfast/internal/wire"
)

// readers1 fill in what the controllers of version 1 know.
var readers1 = map[string]func(*source, *stats1.Metrics){
	"cpu":     (*source).cpu1,
	"cpuacct": (*source).cpuacct1,
	"memory":  (*source).memory1,
	"pids":    (*source).pids1,
	"blkio":   (*source).blkio1,
	"hugetlb": (*source).hugetlb1,
	"rdma":    (*source).rdma1,
}

// tick is the unit of cpuacct.stat in nanoseconds: USER_HZ is 100 on every architecture that
// containers run on.
const tick = 1e9 / 100

// counts tells whether there are statistics in the hierarchy.
func (p *place) counts() bool {
	return p.unified || slices.ContainsFunc(p.controllers, func(name string) bool { return readers1[name] != nil })
}

// noCPU is the CPU part of the message, which is always there, with both of its parts: clients follow
// these pointers without a look.
func noCPU() *stats1.CPUStat {
	return &stats1.CPUStat{Usage: &stats1.CPUUsage{}, Throttling: &stats1.Throttle{}}
}

// stats1 reads the statistics of a version 1 group.
func (r *reader) stats1() (wire.Message, error) {
	for len(r.sources) > 0 {
		m := &stats1.Metrics{CPU: noCPU()}
		var buf []byte // one for all
		gone := slices.IndexFunc(r.sources, func(s *source) bool {
			if s.buf == nil {
				s.buf = buf
			}
			alive := s.stats1(m)
			buf = s.buf
			return !alive
		})
		if gone < 0 {
			return m, nil
		}
		// A group goes hierarchy by hierarchy. What this one gave is not 0 but unknown.
		r.sources[gone].close()
		r.sources = slices.Delete(r.sources, gone, gone+1)
	}
	return nil, ErrGone
}

// stats1 fills in what the controllers of one hierarchy know. It is false if the group has gone.
func (s *source) stats1(m *stats1.Metrics) bool {
	for _, name := range s.controllers {
		if read := readers1[name]; read != nil {
			read(s, m)
		}
	}
	return s.alive()
}

func (s *source) cpu1(m *stats1.Metrics) {
	n := s.pairs("cpu.stat")
	m.CPU.Throttling.Periods = n.of("nr_periods")
	m.CPU.Throttling.ThrottledPeriods = n.of("nr_throttled")
	m.CPU.Throttling.ThrottledTime = n.of("throttled_time")
}

func (s *source) cpuacct1(m *stats1.Metrics) {
	n := s.pairs("cpuacct.stat")
	m.CPU.Usage.User = n.of("user") * tick
	m.CPU.Usage.Kernel = n.of("system") * tick
	m.CPU.Usage.Total = s.number("cpuacct.usage")
	m.CPU.Usage.PerCPU = parseNumbers(s.content("cpuacct.usage_percpu"))
}

func (s *source) pids1(m *stats1.Metrics) {
	m.Pids = &stats1.PidsStat{Current: s.number("pids.current")}
	// Without a limit clients expect 0 here, unlike with version 2.
	if limit := s.number("pids.max"); limit != math.MaxUint64 {
		m.Pids.Limit = limit
	}
}

func (s *source) memory1(m *stats1.Metrics) {
	n := s.pairs("memory.stat")
	m.Memory = &stats1.MemoryStat{
		Usage:     s.memoryEntry("memory."),
		Swap:      s.memoryEntry("memory.memsw."),
		Kernel:    s.memoryEntry("memory.kmem."),
		KernelTCP: s.memoryEntry("memory.kmem.tcp."),

		Cache:        n.of("cache"),
		RSS:          n.of("rss"),
		RSSHuge:      n.of("rss_huge"),
		MappedFile:   n.of("mapped_file"),
		Dirty:        n.of("dirty"),
		Writeback:    n.of("writeback"),
		PgPgIn:       n.of("pgpgin"),
		PgPgOut:      n.of("pgpgout"),
		PgFault:      n.of("pgfault"),
		PgMajFault:   n.of("pgmajfault"),
		InactiveAnon: n.of("inactive_anon"),
		ActiveAnon:   n.of("active_anon"),
		InactiveFile: n.of("inactive_file"),
		ActiveFile:   n.of("active_file"),
		Unevictable:  n.of("unevictable"),

		HierarchicalMemoryLimit: n.of("hierarchical_memory_limit"),
		HierarchicalSwapLimit:   n.of("hierarchical_memsw_limit"),

		TotalCache:        n.of("total_cache"),
		TotalRSS:          n.of("total_rss"),
		TotalRSSHuge:      n.of("total_rss_huge"),
		TotalMappedFile:   n.of("total_mapped_file"),
		TotalDirty:        n.of("total_dirty"),
		TotalWriteback:    n.of("total_writeback"),
		TotalPgPgIn:       n.of("total_pgpgin"),
		TotalPgPgOut:      n.of("total_pgpgout"),
		TotalPgFault:      n.of("total_pgfault"),
		TotalPgMajFault:   n.of("total_pgmajfault"),
		TotalInactiveAnon: n.of("total_inactive_anon"),
		TotalActiveAnon:   n.of("total_active_anon"),
		TotalInactiveFile: n.of("total_inactive_file"),
		TotalActiveFile:   n.of("total_active_file"),
		TotalUnevictable:  n.of("total_unevictable"),
	}
	if n := s.pairs("memory.oom_control"); len(n) > 0 {
		m.MemoryOomControl = &stats1.MemoryOomControl{
			OomKillDisable: n.of("oom_kill_disable"),
			UnderOom:       n.of("under_oom"),
			OomKill:        n.of("oom_kill"),
		}
	}
}

// memoryEntry reads the four files of one kind of memory. All are 0 where the kernel does not
// account for that kind.
func (d *dir) memoryEntry(prefix string) *stats1.MemoryEntry {
	return &stats1.MemoryEntry{
		Usage:   d.number(prefix + "usage_in_bytes"),
		Max:     d.number(prefix + "max_usage_in_bytes"),
		Limit:   d.number(prefix + "limit_in_bytes"),
		Failcnt: d.number(prefix + "failcnt"),
	}
}

func (s *source) hugetlb1(m *stats1.Metrics) {
	for _, size := range s.sizes(".usage_in_bytes") {
		m.Hugetlb = append(m.Hugetlb, &stats1.HugetlbStat{
			Pagesize: size,
			Usage:    s.number("hugetlb." + size + ".usage_in_bytes"),
			Max:      s.number("hugetlb." + size + ".max_usage_in_bytes"),
			Failcnt:  s.number("hugetlb." + size + ".failcnt"),
		})
	}
}

func (s *source) rdma1(m *stats1.Metrics) {
	entries := func(name string) (all []*stats1.RdmaEntry) {
		for _, e := range parseRdma(s.content(name)) {
			all = append(all, &stats1.RdmaEntry{
				Device: e.device, HcaHandles: e.handles, HcaObjects: e.objects,
			})
		}
		return all
	}
	m.Rdma = &stats1.RdmaStat{Current: entries("rdma.current"), Limit: entries("rdma.max")}
}

// blkioSources are the names, around the figure's, of the files that count I/O, depending on who
// schedules it: CFQ (until Linux 5.0), BFQ, or only the throttling layer, which sees everything but
// counted no nested groups until Linux 4.16. It knows how many requests there were and how many bytes.
var blkioSources = []struct {
	prefix, suffix string
	throttle       bool
}{
	{"blkio.", "_recursive", false},
	{"blkio.bfq.", "_recursive", false},
	{"blkio.throttle.", "_recursive", true},
	{"blkio.throttle.", "", true},
}

// blkio1 takes the figures of the first source that has any.
func (s *source) blkio1(m *stats1.Metrics) {
	m.Blkio = &stats1.BlkIOStat{}
	for _, from := range blkioSources {
		read := func(figure string) []blkioEntry {
			return parseBlkio(s.content(from.prefix + figure + from.suffix))
		}
		// Every source counts these; if there are none, it has seen nothing or does not exist.
		serviced := read("io_serviced")
		if len(serviced) == 0 && from.throttle && s.sure {
			return // the layer sees everything
		}
		if len(serviced) == 0 {
			continue
		}
		names := s.deviceNames(serviced)
		m.Blkio.IoServicedRecursive = blkio(serviced, names)
		m.Blkio.IoServiceBytesRecursive = blkio(read("io_service_bytes"), names)
		if from.throttle {
			return
		}
		m.Blkio.IoQueuedRecursive = blkio(read("io_queued"), names)
		m.Blkio.IoServiceTimeRecursive = blkio(read("io_service_time"), names)
		m.Blkio.IoWaitTimeRecursive = blkio(read("io_wait_time"), names)
		m.Blkio.IoMergedRecursive = blkio(read("io_merged"), names)
		m.Blkio.IoTimeRecursive = blkio(read("time"), names)
		m.Blkio.SectorsRecursive = blkio(read("sectors"), names)
		return
	}
}

// blkio makes the entries of a message.
func blkio(entries []blkioEntry, names map[device]string) []*stats1.BlkIOEntry {
	var all []*stats1.BlkIOEntry
	for _, e := range entries {
		all = append(all, &stats1.BlkIOEntry{
			Op: e.op, Device: names[e.device], Major: e.major, Minor: e.minor, Value: e.value,
		})
	}
	return all
}

// deviceNames returns the paths of block devices, none if the kernel does not tell. The list is read
// again only for a device that was not looked up before.
func (s *source) deviceNames(entries []blkioEntry) map[device]string {
	unknown := func(e blkioEntry) bool {
		_, ok := s.devices[e.device]
		return !ok
	}
	if !slices.ContainsFunc(entries, unknown) {
		return s.devices
	}
	b, err := os.ReadFile("/proc/partitions")
	if err != nil {
		return nil
	}
	s.devices = parsePartitions(b)
	for _, e := range entries {
		if unknown(e) {
			s.devices[e.device] = "" // it has no name there
		}
	}
	return s.devices
}

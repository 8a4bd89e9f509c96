package cgroup

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/internal/api/stats1"
	"holdfast/internal/api/stats2"
	"holdfast/internal/wire"
)

// pretend makes a place of a directory with the given files. It is not in cgroupfs, but nothing
// that reads statistics can tell.
func pretend(t *testing.T, controllers string, files map[string]string) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{point: filepath.Dir(dir), dir: dir, own: true}
	p.path = "/c1"
	if p.unified = controllers == ""; !p.unified {
		p.controllers = strings.Split(controllers, ",")
	}
	files["cgroup.procs"] = ""
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	p.dev, p.ino = st.Dev, st.Ino
	return p
}

func statsOf(t *testing.T, g *Group) wire.Message {
	t.Helper()
	m, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestStatsOfVersion2AreComplete(t *testing.T) {
	g := &Group{unified: true, v2: pretend(t, "", map[string]string{
		"pids.current": "7\n", "pids.max": "max\n",
		"cpu.stat": "usage_usec 18820\nuser_usec 5356\nsystem_usec 13464\nnice_usec 9\n" +
			"nr_periods 1\nnr_throttled 2\nthrottled_usec 3\nnr_bursts 4\nburst_usec 5\n",
		"cpu.pressure":   psi,
		"memory.current": "4096\n", "memory.max": "max\n", "memory.peak": "8192\n",
		"memory.swap.current": "1\n", "memory.swap.max": "2\n", "memory.swap.peak": "3\n",
		"memory.stat": memoryStat2, "memory.events": memoryEvents,
		"io.stat":      ioStat,
		"rdma.current": rdmaCurrent, "rdma.max": "mlx4_0 hca_handle=max hca_object=max\n",
		"hugetlb.2MB.current": "2097152\n", "hugetlb.2MB.max": "max\n", "hugetlb.2MB.events": "max 3\n",
		"hugetlb.2MB.rsvd.current": "5\n", "hugetlb.2MB.events.local": "max 9\n",
	})}
	want := &stats2.Metrics{
		Pids: &stats2.PidsStat{Current: 7, Limit: math.MaxUint64},
		CPU: &stats2.CPUStat{
			UsageUsec: 18820, UserUsec: 5356, SystemUsec: 13464, NrPeriods: 1, NrThrottled: 2, ThrottledUsec: 3, NrBursts: 4, BurstUsec: 5,
			PSI: &stats2.PSIStats{
				Some: &stats2.PSIData{Avg10: 0.12, Avg60: 0.34, Avg300: 0.56, Total: 789},
				Full: &stats2.PSIData{Total: 12},
			},
		},
		Memory: &stats2.MemoryStat{
			Anon: 1454080, File: 32018432, Pgfault: 14355, WorkingsetRefault: 9, Usage: 4096, UsageLimit: math.MaxUint64, MaxUsage: 8192,
			SwapUsage: 1, SwapLimit: 2, SwapMaxUsage: 3,
		},
		MemoryEvents: &stats2.MemoryEvents{Max: 1234, Oom: 17, OomKill: 3, OomGroupKill: 1},
		Io: &stats2.IOStat{Usage: []*stats2.IOEntry{
			{Major: 254, Minor: 16, Rbytes: 1024, Rios: 2},
			{Major: 8, Minor: 0, Rbytes: 11002880, Wbytes: 21016576, Rios: 201, Wios: 29},
		}},
		Rdma: &stats2.RdmaStat{
			Current: []*stats2.RdmaEntry{
				{Device: "mlx4_0", HcaHandles: 2, HcaObjects: 2000},
				{Device: "ocrdma1", HcaHandles: 3, HcaObjects: math.MaxUint32},
			},
			Limit: []*stats2.RdmaEntry{{Device: "mlx4_0", HcaHandles: math.MaxUint32, HcaObjects: math.MaxUint32}},
		},
		Hugetlb: []*stats2.HugeTlbStat{{Pagesize: "2MB", Current: 2097152, Max: math.MaxUint64, Failcnt: 3}},
	}
	if diff := cmp.Diff(wire.Message(want), statsOf(t, g)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Clients follow the pointers to these parts without a look.
func TestStatsOfVersion2HaveTheirPartsWithoutControllers(t *testing.T) {
	m := statsOf(t, &Group{unified: true, v2: pretend(t, "", map[string]string{})}).(*stats2.Metrics)
	if m.Pids == nil || m.CPU == nil || m.Memory == nil || m.Io == nil || m.Rdma == nil {
		t.Errorf("a part is missing: %v", m)
	}
	if m.MemoryEvents != nil || m.CPU.PSI != nil {
		t.Errorf("figures without a source: %v", m)
	}
}

func TestStatsOfVersion1AreComplete(t *testing.T) {
	g := &Group{v1: []*place{
		pretend(t, "cpu,cpuacct", map[string]string{
			"cpu.stat":     "nr_periods 1\nnr_throttled 2\nthrottled_time 3\nnr_bursts 4\n",
			"cpuacct.stat": "user 5\nsystem 6\n", "cpuacct.usage": "123456\n", "cpuacct.usage_percpu": "100 23456 \n",
		}),
		pretend(t, "memory", map[string]string{
			"memory.stat": "cache 1\nrss 2\nshmem 9\npgpgin 3\nhierarchical_memory_limit 4\n" +
				"hierarchical_memsw_limit 5\ntotal_rss 6\ntotal_unevictable 7\n",
			"memory.oom_control":             oomControl,
			"memory.usage_in_bytes":          "10\n",
			"memory.max_usage_in_bytes":      "11\n",
			"memory.limit_in_bytes":          "9223372036854771712\n",
			"memory.failcnt":                 "12\n",
			"memory.memsw.usage_in_bytes":    "13\n",
			"memory.kmem.usage_in_bytes":     "14\n",
			"memory.kmem.tcp.usage_in_bytes": "15\n",
		}),
		pretend(t, "pids", map[string]string{"pids.current": "3\n", "pids.max": "max\n"}),
		pretend(t, "hugetlb", map[string]string{
			"hugetlb.2MB.usage_in_bytes": "1\n", "hugetlb.2MB.max_usage_in_bytes": "2\n",
			"hugetlb.2MB.failcnt": "3\n", "hugetlb.2MB.rsvd.usage_in_bytes": "4\n",
		}),
		pretend(t, "rdma", map[string]string{"rdma.current": rdmaCurrent}),
		pretend(t, "name=systemd", map[string]string{}),
	}}
	want := &stats1.Metrics{
		CPU: &stats1.CPUStat{
			Usage:      &stats1.CPUUsage{Total: 123456, User: 50_000_000, Kernel: 60_000_000, PerCPU: []uint64{100, 23456}},
			Throttling: &stats1.Throttle{Periods: 1, ThrottledPeriods: 2, ThrottledTime: 3},
		},
		Memory: &stats1.MemoryStat{
			Cache: 1, RSS: 2, PgPgIn: 3, HierarchicalMemoryLimit: 4, HierarchicalSwapLimit: 5, TotalRSS: 6, TotalUnevictable: 7,
			Usage: &stats1.MemoryEntry{Usage: 10, Max: 11, Limit: 9223372036854771712, Failcnt: 12},
			Swap:  &stats1.MemoryEntry{Usage: 13}, Kernel: &stats1.MemoryEntry{Usage: 14}, KernelTCP: &stats1.MemoryEntry{Usage: 15},
		},
		MemoryOomControl: &stats1.MemoryOomControl{OomKill: 3},
		Pids:             &stats1.PidsStat{Current: 3},
		Hugetlb:          []*stats1.HugetlbStat{{Pagesize: "2MB", Usage: 1, Max: 2, Failcnt: 3}},
		Rdma: &stats1.RdmaStat{Current: []*stats1.RdmaEntry{
			{Device: "mlx4_0", HcaHandles: 2, HcaObjects: 2000}, {Device: "ocrdma1", HcaHandles: 3, HcaObjects: math.MaxUint32},
		}},
	}
	if diff := cmp.Diff(wire.Message(want), statsOf(t, g)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBlkioComesFromTheFirstSourceWithFigures(t *testing.T) {
	const served, throttled = "1:0 Read 100\nTotal 100\n", "1:0 Read 400\nTotal 400\n"
	for _, row := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"cfq", map[string]string{"blkio.io_serviced_recursive": served, "blkio.throttle.io_serviced": throttled}, 100},
		{"bfq", map[string]string{
			"blkio.io_serviced_recursive": "Total 0\n", "blkio.bfq.io_serviced_recursive": served,
			"blkio.throttle.io_serviced_recursive": throttled,
		}, 100},
		{"throttle", map[string]string{"blkio.bfq.io_serviced_recursive": "Total 0\n", "blkio.throttle.io_serviced_recursive": throttled}, 400},
		{"old throttle", map[string]string{"blkio.throttle.io_serviced": throttled}, 400},
	} {
		m := statsOf(t, &Group{v1: []*place{pretend(t, "blkio", row.files)}}).(*stats1.Metrics)
		if got := m.Blkio.IoServicedRecursive; len(got) != 1 || got[0].Value != row.want || got[0].Major != 1 || got[0].Op != "Read" {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

// A group may go hierarchy by hierarchy.
func TestStatsWithoutAHierarchyAreOfTheOthers(t *testing.T) {
	pids, memory := pretend(t, "pids", map[string]string{"pids.current": "3\n"}), pretend(t, "memory", map[string]string{})
	if err := os.RemoveAll(memory.dir); err != nil {
		t.Fatal(err)
	}
	g := &Group{v1: []*place{memory, pids}}
	if m := statsOf(t, g).(*stats1.Metrics); m.Pids == nil || m.Pids.Current != 3 || m.Memory != nil {
		t.Errorf("got %v", m)
	}
	if err := os.RemoveAll(pids.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Stats(); !errors.Is(err, ErrGone) || !errdefs.IsNotFound(err) {
		t.Errorf("without any: %v", err)
	}
}

// c/0903f203f and others: a container whose group was never found brought the shim down.
func TestNoGroupIsAGroupThatHasGone(t *testing.T) {
	var none *Group
	_, err1 := none.Stats()
	_, err2 := none.Pids()
	for what, err := range map[string]error{"Stats": err1, "Pids": err2, "Signal": none.Signal(unix.SIGTERM), "Thaw": none.Thaw()} {
		if !errors.Is(err, ErrGone) || !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, ok := none.Memory(); ok || none.Unified() || none.EnableControllers() != nil {
		t.Error("a nil group has something")
	}
}

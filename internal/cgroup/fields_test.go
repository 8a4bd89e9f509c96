package cgroup

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"holdfast/internal/api/stats1"
	"holdfast/internal/api/stats2"
	"holdfast/internal/wire"
	"holdfast/test/twin"
)

// origin tells where the figure of a field comes from. The key is "" in a file that holds but one
// number, a word in one of lines, or two words: the second is one of several in the line that the
// first begins, "key=" where key and number have no space between them.
type origin struct{ field, file, key string }

// origins2 are the fields of the message of version 2.
var origins2 = []origin{
	{"pids.current", "pids.current", ""},
	{"pids.limit", "pids.max", ""},

	{"cpu.usage_usec", "cpu.stat", "usage_usec"},
	{"cpu.user_usec", "cpu.stat", "user_usec"},
	{"cpu.system_usec", "cpu.stat", "system_usec"},
	{"cpu.nr_periods", "cpu.stat", "nr_periods"},
	{"cpu.nr_throttled", "cpu.stat", "nr_throttled"},
	{"cpu.throttled_usec", "cpu.stat", "throttled_usec"},
	{"cpu.nr_bursts", "cpu.stat", "nr_bursts"},
	{"cpu.burst_usec", "cpu.stat", "burst_usec"},

	{"memory.anon", "memory.stat", "anon"},
	{"memory.file", "memory.stat", "file"},
	{"memory.kernel_stack", "memory.stat", "kernel_stack"},
	{"memory.slab", "memory.stat", "slab"},
	{"memory.sock", "memory.stat", "sock"},
	{"memory.shmem", "memory.stat", "shmem"},
	{"memory.file_mapped", "memory.stat", "file_mapped"},
	{"memory.file_dirty", "memory.stat", "file_dirty"},
	{"memory.file_writeback", "memory.stat", "file_writeback"},
	{"memory.anon_thp", "memory.stat", "anon_thp"},
	{"memory.inactive_anon", "memory.stat", "inactive_anon"},
	{"memory.active_anon", "memory.stat", "active_anon"},
	{"memory.inactive_file", "memory.stat", "inactive_file"},
	{"memory.active_file", "memory.stat", "active_file"},
	{"memory.unevictable", "memory.stat", "unevictable"},
	{"memory.slab_reclaimable", "memory.stat", "slab_reclaimable"},
	{"memory.slab_unreclaimable", "memory.stat", "slab_unreclaimable"},
	{"memory.pgfault", "memory.stat", "pgfault"},
	{"memory.pgmajfault", "memory.stat", "pgmajfault"},
	{"memory.workingset_refault", "memory.stat", "workingset_refault"},
	{"memory.workingset_activate", "memory.stat", "workingset_activate"},
	{"memory.workingset_nodereclaim", "memory.stat", "workingset_nodereclaim"},
	{"memory.pgrefill", "memory.stat", "pgrefill"},
	{"memory.pgscan", "memory.stat", "pgscan"},
	{"memory.pgsteal", "memory.stat", "pgsteal"},
	{"memory.pgactivate", "memory.stat", "pgactivate"},
	{"memory.pgdeactivate", "memory.stat", "pgdeactivate"},
	{"memory.pglazyfree", "memory.stat", "pglazyfree"},
	{"memory.pglazyfreed", "memory.stat", "pglazyfreed"},
	{"memory.thp_fault_alloc", "memory.stat", "thp_fault_alloc"},
	{"memory.thp_collapse_alloc", "memory.stat", "thp_collapse_alloc"},
	{"memory.usage", "memory.current", ""},
	{"memory.usage_limit", "memory.max", ""},
	{"memory.max_usage", "memory.peak", ""},
	{"memory.swap_usage", "memory.swap.current", ""},
	{"memory.swap_limit", "memory.swap.max", ""},
	{"memory.swap_max_usage", "memory.swap.peak", ""},

	{"memory_events.low", "memory.events", "low"},
	{"memory_events.high", "memory.events", "high"},
	{"memory_events.max", "memory.events", "max"},
	{"memory_events.oom", "memory.events", "oom"},
	{"memory_events.oom_kill", "memory.events", "oom_kill"},
	{"memory_events.oom_group_kill", "memory.events", "oom_group_kill"},

	{"io.usage.major", "io.stat", "8:3 "},
	{"io.usage.minor", "io.stat", "8:3 "},
	{"io.usage.rbytes", "io.stat", "8:3 rbytes="},
	{"io.usage.wbytes", "io.stat", "8:3 wbytes="},
	{"io.usage.rios", "io.stat", "8:3 rios="},
	{"io.usage.wios", "io.stat", "8:3 wios="},

	{"rdma.current.device", "rdma.current", "mlx4_0 "},
	{"rdma.current.hca_handles", "rdma.current", "mlx4_0 hca_handle="},
	{"rdma.current.hca_objects", "rdma.current", "mlx4_0 hca_object="},
	{"rdma.limit.device", "rdma.max", "mlx4_0 "},
	{"rdma.limit.hca_handles", "rdma.max", "mlx4_0 hca_handle="},
	{"rdma.limit.hca_objects", "rdma.max", "mlx4_0 hca_object="},

	{"hugetlb.pagesize", "hugetlb.2MB.current", ""},
	{"hugetlb.current", "hugetlb.2MB.current", ""},
	{"hugetlb.max", "hugetlb.2MB.max", ""},
	{"hugetlb.failcnt", "hugetlb.2MB.events", "max"},
}

// origins1 are the fields of the message of version 1.
var origins1 = []origin{
	{"pids.current", "pids.current", ""},
	{"pids.limit", "pids.max", ""},

	{"cpu.usage.total", "cpuacct.usage", ""},
	{"cpu.usage.per_cpu", "cpuacct.usage_percpu", ""},
	{"cpu.usage.user", "cpuacct.stat", "user"},
	{"cpu.usage.kernel", "cpuacct.stat", "system"},
	{"cpu.throttling.periods", "cpu.stat", "nr_periods"},
	{"cpu.throttling.throttled_periods", "cpu.stat", "nr_throttled"},
	{"cpu.throttling.throttled_time", "cpu.stat", "throttled_time"},

	{"memory_oom_control.oom_kill_disable", "memory.oom_control", "oom_kill_disable"},
	{"memory_oom_control.under_oom", "memory.oom_control", "under_oom"},
	{"memory_oom_control.oom_kill", "memory.oom_control", "oom_kill"},

	{"hugetlb.pagesize", "hugetlb.2MB.usage_in_bytes", ""},
	{"hugetlb.usage", "hugetlb.2MB.usage_in_bytes", ""},
	{"hugetlb.max", "hugetlb.2MB.max_usage_in_bytes", ""},
	{"hugetlb.failcnt", "hugetlb.2MB.failcnt", ""},

	{"rdma.current.device", "rdma.current", "mlx4_0 "},
	{"rdma.current.hca_handles", "rdma.current", "mlx4_0 hca_handle="},
	{"rdma.current.hca_objects", "rdma.current", "mlx4_0 hca_object="},
	{"rdma.limit.device", "rdma.max", "mlx4_0 "},
	{"rdma.limit.hca_handles", "rdma.max", "mlx4_0 hca_handle="},
	{"rdma.limit.hca_objects", "rdma.max", "mlx4_0 hca_object="},
}

// tables2 adds the files that are alike: those of pressure.
func tables2() []origin {
	all := origins2
	for _, part := range []string{"cpu", "memory", "io"} {
		for _, kind := range []string{"some", "full"} {
			for _, key := range []string{"avg10", "avg60", "avg300", "total"} {
				all = append(all, origin{part + ".psi." + kind + "." + key, part + ".pressure", kind + " " + key + "="})
			}
		}
	}
	return all
}

// tables1 adds the files that are alike: the keys of memory.stat, for the group alone and with those
// below it, the kinds of memory, and the figures of devices.
func tables1() []origin {
	all := origins1
	for _, field := range []string{
		"cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pg_pg_in", "pg_pg_out", "pg_fault",
		"pg_maj_fault", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable",
	} {
		key := strings.NewReplacer("pg_pg_", "pgpg", "pg_maj_fault", "pgmajfault", "pg_fault", "pgfault").Replace(field)
		all = append(all, origin{"memory." + field, "memory.stat", key}, origin{"memory.total_" + field, "memory.stat", "total_" + key})
	}
	all = append(all, origin{"memory.hierarchical_memory_limit", "memory.stat", "hierarchical_memory_limit"},
		origin{"memory.hierarchical_swap_limit", "memory.stat", "hierarchical_memsw_limit"})
	for field, prefix := range map[string]string{
		"usage": "memory.", "swap": "memory.memsw.", "kernel": "memory.kmem.", "kernel_tcp": "memory.kmem.tcp.",
	} {
		for figure, file := range map[string]string{
			"usage": "usage_in_bytes", "max": "max_usage_in_bytes", "limit": "limit_in_bytes", "failcnt": "failcnt",
		} {
			all = append(all, origin{"memory." + field + "." + figure, prefix + file, ""})
		}
	}
	for _, field := range []string{
		"io_service_bytes", "io_serviced", "io_queued", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors",
	} {
		file := "blkio." + strings.Replace(field, "io_time", "time", 1) + "_recursive"
		for _, key := range []string{"op", "device", "major", "minor"} {
			all = append(all, origin{"blkio." + field + "_recursive." + key, file, "1048575:3 "})
		}
		all = append(all, origin{"blkio." + field + "_recursive.value", file, "1048575:3 Read"})
	}
	return all
}

// filesOf makes files with a number of its own for each origin.
func filesOf(origins []origin) (files map[string]string, numbers map[string]string) {
	files, numbers = map[string]string{}, map[string]string{}
	lines := map[string]string{} // what the last line of a file begins with
	for i, o := range origins {
		n := fmt.Sprint(1000 + i)
		numbers[o.field] = n
		first, rest, two := strings.Cut(o.key, " ")
		switch {
		case o.key == "":
			files[o.file] = n + "\n"
		case !two:
			files[o.file] += o.key + " " + n + "\n"
		case rest == "":
		case !strings.HasSuffix(rest, "="):
			files[o.file] += o.key + " " + n + "\n"
		case lines[o.file] != first:
			files[o.file] += "\n" + first + " " + rest + n
			lines[o.file] = first
		default:
			files[o.file] += " " + rest + n
		}
	}
	return files, numbers
}

// unfilled are the fields for which a control group has no figures, with who would know them.
var unfilled = map[string]string{
	"network":      "the network namespace of the pod, which its sandbox is asked about",
	"cgroup_stats": "the netlink interface of taskstats, which containerd's own shim does not ask",
}

// figuresOf returns all fields of a message, by their path. A field of a list is that of its first
// element.
func figuresOf(m protoreflect.Message, prefix string, into map[string]string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		path := prefix + string(f.Name())
		if unfilled[path] != "" {
			continue
		}
		v := m.Get(f)
		switch {
		case f.IsList() && v.List().Len() == 0:
			into[path] = "nothing"
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			figuresOf(v.List().Get(0).Message(), path+".", into)
		case f.IsList():
			into[path] = v.List().Get(0).String()
		case f.Kind() == protoreflect.MessageKind:
			figuresOf(v.Message(), path+".", into)
		default:
			into[path] = v.String()
		}
	}
}

// Every field that the two messages have is filled, from the file that the tables say.
func TestEveryFieldOfStatisticsIsFilled(t *testing.T) {
	for _, row := range []struct {
		name    string
		origins []origin
		group   func(files map[string]string) *Group
		differ  map[string]string // fields that are not what is in the file, but what follows from it
		message wire.Message
	}{
		{"version 1", tables1(), func(files map[string]string) *Group {
			return &Group{v1: []*place{pretend(t, "cpu,cpuacct,memory,pids,blkio,hugetlb,rdma", files)}}
		}, map[string]string{"hugetlb.pagesize": "2MB", "rdma.current.device": "mlx4_0", "rdma.limit.device": "mlx4_0"}, &stats1.Metrics{}},
		{"version 2", tables2(), func(files map[string]string) *Group {
			return &Group{unified: true, v2: pretend(t, "", files)}
		}, map[string]string{
			"hugetlb.pagesize": "2MB", "rdma.current.device": "mlx4_0", "rdma.limit.device": "mlx4_0", "io.usage.major": "8", "io.usage.minor": "3",
		}, &stats2.Metrics{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			files, want := filesOf(row.origins)
			for field := range want {
				if strings.HasPrefix(field, "blkio.") {
					switch field[strings.LastIndex(field, ".")+1:] {
					case "op":
						want[field] = "Read"
					case "device":
						want[field] = "" // no such device is there
					case "major":
						want[field] = "1048575"
					case "minor":
						want[field] = "3"
					}
				}
			}
			for _, field := range []string{"cpu.usage.user", "cpu.usage.kernel"} {
				if ticks := want[field]; ticks != "" {
					want[field] = ticks + "0000000" // from hundredths of a second
				}
			}
			for field, is := range row.differ {
				want[field] = is
			}
			got := map[string]string{}
			figuresOf(twin.Of(t, statsOf(t, row.group(files))).ProtoReflect(), "", got)
			for field, is := range got {
				if want[field] != is {
					t.Errorf("%s is %s, want %s", field, is, want[field])
				}
			}
			for field := range want {
				if _, ok := got[field]; !ok {
					t.Errorf("there is no field %s", field)
				}
			}
		})
	}
}

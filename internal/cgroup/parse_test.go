package cgroup

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNumbersAreReadAsTheKernelMeansThem(t *testing.T) {
	for _, row := range []struct {
		in   string
		want uint64
		ok   bool
	}{
		{"0\n", 0, true},
		{"9223372036854771712\n", 9223372036854771712, true},
		{"max\n", math.MaxUint64, true},
		{"18446744073709551615", math.MaxUint64, true},
		{"18446744073709551616", math.MaxUint64, true}, // does not fit
		{"-1\n", 0, true},
		{"", 0, false}, {"-", 0, false}, {"maximum", 0, false}, {"1 2", 0, false}, {"0x10", 0, false},
	} {
		if got, ok := parseNumber([]byte(row.in)); got != row.want || ok != row.ok {
			t.Errorf("parseNumber(%q) = %d, %v", row.in, got, ok)
		}
	}
}

func TestPidsOutsideOfOurNamespaceAreNoPids(t *testing.T) {
	if diff := cmp.Diff([]int{12, 4194304}, parsePids([]byte("0\n12\n-1\nx\n4194304\n99999999999\n"))); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownLinesAreLeftOutOfPairs(t *testing.T) {
	got := parsePairs([]byte("oom_kill 3\n\nnew_thing some=1 other=2\nlonely\nanon 4096\nflag yes\n"))
	if diff := cmp.Diff(pairs{{"oom_kill", 3}, {"anon", 4096}}, got, cmp.AllowUnexported(pair{})); diff != "" {
		t.Error(diff)
	}
}

// containerd/containerd#3951: a line without figures made all statistics fail.
func TestDevicesWithoutFiguresAreLeftOutOfIO(t *testing.T) {
	got := parseIO([]byte(ioStat))
	want := map[device]map[string]uint64{
		{254, 16}: {"rbytes": 1024, "wbytes": 0, "rios": 2, "wios": 0, "dbytes": 0, "dios": 0},
		{8, 0}:    {"rbytes": 11002880, "wbytes": 21016576, "rios": 201, "wios": 29, "dbytes": 0, "dios": 0, "cost.usage": 5},
	}
	have := map[device]map[string]uint64{}
	for _, e := range got {
		have[e.device] = e.values
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

func TestBlkioSumsAreLeftOut(t *testing.T) {
	got := parseBlkio([]byte(blkioServiced))
	var read, total uint64
	for _, e := range got {
		switch {
		case e.device != device{8, 0} && e.device != device{253, 1}:
			t.Errorf("device %v", e.device)
		case e.op == "Read":
			read += e.value
		case e.op == "Total":
			total += e.value
		}
	}
	if len(got) != 7 || read != 106 || total != 112 {
		t.Errorf("%d entries, read %d, total %d: %+v", len(got), read, total, got)
	}
}

func TestPartitionsAreNamed(t *testing.T) {
	got := parsePartitions([]byte(partitionsFile))
	if diff := cmp.Diff(map[device]string{{254, 0}: "/dev/vda", {8, 0}: "/dev/sda", {8, 1}: "/dev/sda1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRdmaIsRead(t *testing.T) {
	got := parseRdma([]byte("mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_object=7 hca_new=3\n\nhca_handle=1 x\n"))
	want := []rdmaEntry{{"mlx4_0", 2, math.MaxUint32}, {"ocrdma1", 0, 7}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v", got)
	}
}

func TestPressureIsRead(t *testing.T) {
	got := parsePressure([]byte("some avg10=1.50 avg60=0.25 avg300=nan total=1234\nfull avg10=x avg60 total=2 new=3\n"))
	want := map[string]pressure{"some": {1.5, 0.25, 0, 1234}, "full": {0, 0, 0, 2}}
	if got["some"] != want["some"] || got["full"] != want["full"] || len(got) != 2 {
		t.Errorf("got %+v", got)
	}
}

const (
	ioStat = "254:16 rbytes=1024 wbytes=0 rios=2 wios=0 dbytes=0 dios=0\n" +
		"7:1 \n7:2 8:0 rbytes=11002880 wbytes=21016576 rios=201 wios=29 dbytes=0 dios=0 cost.usage=5 cost.state=idle\n" +
		"(unknown) rbytes=1\n"
	blkioServiced = "8:0 Read 100\n8:0 Write 6\n8:0 Sync 106\n8:0 Total 106\n253:1 Read 6\n253:1 Total 6\n253:1 55\n" +
		"Total 112\nx:1 Read 5\n8:0 Read much\n8:0 Read 1 2\n"
	partitionsFile = "major minor  #blocks  name\n\n 254        0  264241152 vda\n   8        0  976762584 sda\n" +
		"   8        1     524288 sda1\n   8        1     524288 other\n   9\n"
	memoryEvents = "low 0\nhigh 0\nmax 1234\noom 17\noom_kill 3\noom_group_kill 1\n"
	memoryStat2  = "anon 1454080\nfile 32018432\nkernel 0\nworkingset_refault_anon 4\nworkingset_refault_file 5\npgfault 14355\n"
	oomControl   = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
	psi          = "some avg10=0.12 avg60=0.34 avg300=0.56 total=789\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"
	rdmaCurrent  = "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n"
	procStatus   = "Name:\tsleep\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4711\nNgid:\t0\nPid:\t4712\n"
)

// FuzzFigures feeds every parser of what controllers count. None may panic, and none may make more
// entries than there are words.
func FuzzFigures(f *testing.F) {
	for _, seed := range []string{
		ioStat, blkioServiced, partitionsFile, memoryEvents, memoryStat2, oomControl, psi, rdmaCurrent, "max\n", "-1\n", "0 12 34 \n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		words := len(b)/2 + 1
		counts := map[string]int{
			"pairs": len(parsePairs(b)), "io": len(parseIO(b)), "blkio": len(parseBlkio(b)), "rdma": len(parseRdma(b)),
			"pressure": len(parsePressure(b)), "partitions": len(parsePartitions(b)), "numbers": len(parseNumbers(b)),
		}
		for what, n := range counts {
			if n > words {
				t.Errorf("%s: %d entries out of %d bytes", what, n, len(b))
			}
		}
		for _, p := range parsePressure(b) {
			if math.IsNaN(p.avg10+p.avg60+p.avg300) && !math.IsInf(p.avg10, 0) {
				t.Errorf("pressure %+v", p)
			}
		}
		for _, e := range parseIO(b) {
			if len(e.values) == 0 {
				t.Errorf("device %v without figures", e.device)
			}
		}
	})
}

// FuzzPids makes sure that nothing that kill(2) takes for more than one process gets through.
func FuzzPids(f *testing.F) {
	for _, seed := range []string{"1\n2\n", "0\n", "-1\n", "4194304", procStatus} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, pid := range append(parsePids(b), max(parseStatus(b), 1)) {
			if pid <= 0 {
				t.Errorf("pid %d", pid)
			}
		}
	})
}

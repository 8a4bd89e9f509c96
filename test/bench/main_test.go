package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain is also the programs that are measured with, as main is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == programWord {
		if err := program(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{7}, 0.9, 7},
		{[]time.Duration{3, 1, 2}, 0.5, 2},
		{[]time.Duration{10, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0.9, 10},
		{[]time.Duration{2, 1}, 1, 2},
	} {
		if got := quantile(test.values, test.q); got != test.want {
			t.Errorf("quantile %v of %v: got %v, want %v", test.q, test.values, got, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		only, want string
		bad        bool
	}{
		{only: "", want: strings.ReplaceAll(partNames(), ",", "")},
		{only: "stdio", want: "stdio"},
		{only: "stdio,lives", want: "lives stdio"},
		{only: "idle,disk", bad: true},
		{only: "idle,", bad: true},
	} {
		chosen, err := choose(test.only)
		var names []string
		for _, p := range chosen {
			names = append(names, p.name)
		}
		if got := strings.Join(names, " "); got != test.want || err != nil != test.bad {
			t.Errorf("%q: got %q, %v; want %q, an error: %v", test.only, got, err, test.want, test.bad)
		}
	}
}

func TestRatioIsOfRounds(t *testing.T) {
	// The machine was slow in the second round, for both.
	if got := ratio([]float64{20, 2, 22}, []float64{10, 1, 10}); got != 2 {
		t.Errorf("got %v, want 2", got)
	}
	if got := figure(2, ratio(nil, []float64{1})); got != "-" {
		t.Errorf("without rounds: got %q, want -", got)
	}
}

func TestTargetsAreMetOrNot(t *testing.T) {
	for _, test := range []struct {
		bound bound
		value float64
		want  string
	}{
		{atLeast, 0.95, "met"}, {atLeast, 0.94, "not met"}, {atMost, 0.95, "met"}, {atMost, 0.96, "not met"},
	} {
		r := row{line: line{bound: test.bound, limit: 0.95}, samples: map[string][]float64{"ours": {test.value}}}
		if _, got := r.target(); got != test.want {
			t.Errorf("%v, %v: got %q, want %q", test.bound, test.value, got, test.want)
		}
	}
	if _, got := (&row{line: line{bound: atLeast}}).target(); got != "not measured" {
		t.Errorf("without a figure: %q", got)
	}
}

// A shim whose first process has no FIFO of the client has no figure for that, but the rest.
func TestStreamsAreOnTheSheet(t *testing.T) {
	b := &bench{}
	flows := make([]flow, len(modes))
	flows[relayMode].cpu[ours], flows[relayMode].cpu[theirs] = []float64{1}, []float64{4}
	b.noteTargets(flows, make([]echoes, len(echoModes)))
	for _, r := range b.rows {
		if _, met := r.target(); (met == "met") != (r.id == "out-exec-cpu") || met == "not met" {
			t.Errorf("%s: %s", r.name, met)
		}
	}
}

func TestGoroutinesAreCounted(t *testing.T) {
	const part = `time="2026-01-02T03:04:05Z" level=info msg="stacks"`
	for name, log := range map[string]string{
		"one line": `time="x" level=info msg="=== BEGIN\ngoroutine 1 [running]:\nmain()\n\ngoroutine 27 [IO wait, 2 minutes]:\nf(0x1)\n==="` + "\n",
		"parts": part + ` stacks="goroutine 1 [running]:\nmain()\n\ngorou` + "\n" +
			part + `tine 27 [select]:\ncreated by x in goroutine 1"` + "\n",
	} {
		if got := countGoroutines(log); got != 2 {
			t.Errorf("%s: got %d, want 2", name, got)
		}
	}
}

// A source without a shim is a complete one but for the container.
func TestBareSourcesDeliverWhatIsAsked(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			s, err := bareSource(filepath.Join(t.TempDir(), strconv.Itoa(i)), self, m, 128<<10)
			defer func() {
				if err := s.close(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			if err != nil {
				t.Fatal(err)
			}
			if m.sink == toFIFO && s.size() != 128<<10 {
				t.Errorf("the FIFO has %d bytes", s.size())
			}
			for range 2 {
				if r, err := s.round(3<<20, make([]byte, block)); err != nil || r.took <= 0 || r.cpu != 0 {
					t.Errorf("got %+v, %v", r, err)
				}
			}
			if m.sink == toFile {
				if info, err := os.Stat(s.file); err != nil || info.Size() != 3<<20 {
					t.Errorf("the file: %v, %v", info, err)
				}
			}
		})
	}
}

func TestBareEchoesEcho(t *testing.T) {
	for i, m := range echoModes {
		t.Run(m.name, func(t *testing.T) {
			e, err := bareEcho(filepath.Join(t.TempDir(), strconv.Itoa(i)), m)
			defer func() {
				if err := e.close(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			if err != nil {
				t.Fatal(err)
			}
			if times, err := e.trips(3, nil); err != nil || len(times) != 3 {
				t.Errorf("got %v, %v", times, err)
			}
		})
	}
}

func TestCPUTimeGrowsWithWork(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < time.Second; {
		after, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
	}
	t.Error("a second of calls has taken no time")
}

func TestNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(path, []byte("Name:\tshim\nPss_Dirty: 3 kB\nPss:  41 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := number(path, "Pss:"); err != nil || got != 41 {
		t.Errorf("got %d, %v; want 41", got, err)
	}
	if got, err := number(path, "Rss:"); err == nil {
		t.Errorf("got %d for a name that is not there, want an error", got)
	}
}

func TestHoldingsAreThereToRead(t *testing.T) {
	for _, h := range slices.Concat(atFirst, afterFew, afterMany) {
		if n, err := number("/proc/self/"+h.file, h.field); err != nil || n <= 0 {
			t.Errorf("%s: %d, %v", h.id, n, err)
		}
	}
	if n, err := switches(os.Getpid()); err != nil || n <= 0 {
		t.Errorf("context switches: %d, %v", n, err)
	}
}

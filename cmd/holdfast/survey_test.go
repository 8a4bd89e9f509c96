package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestMetricsAskManyShimsAtATimeButNotAll(t *testing.T) {
	n := newFakeNode(t, 100, surveyWidth)
	var out bytes.Buffer
	if err := metrics(t.Context(), &out, surveyOptions{cfg: n.cfg}); err != nil {
		t.Fatal(err)
	}
	if n.max != surveyWidth {
		t.Errorf("%d calls at a time, want %d", n.max, surveyWidth)
	}
	text := out.String()
	if got := strings.Count(text, "\nholdfast_shim_up{"); got != 100 || strings.Contains(text, "holdfast_shim_up{}") {
		t.Errorf("%d shims, want 100", got)
	}
	for i := range 100 {
		for _, want := range []string{
			`holdfast_shim_up{namespace="ns",group="c%03d",shim_pid="%d"} 1`,
			`holdfast_container_state{namespace="ns",group="c%03[1]d",shim_pid="%[2]d",container="c%03[1]d",state="running"} 1`,
			`holdfast_container_cpu_seconds_total{namespace="ns",group="c%03[1]d",shim_pid="%[2]d",container="c%03[1]d"} 1.5`,
			`holdfast_container_memory_bytes{namespace="ns",group="c%03[1]d",shim_pid="%[2]d",container="c%03[1]d"} 2.097152e+06`,
		} {
			if line := fmt.Sprintf(want, i+1, i+1); !strings.Contains(text, line+"\n") {
				t.Fatalf("missing: %s", line)
			}
		}
	}
	wellFormed(t, text)
}

// wellFormed looks at each line of an exposition: a sample stands below its family, once.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	family, seen := "", map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			family, _, _ = strings.Cut(name, " ")
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		at, name := strings.LastIndex(line, " "), line
		if end := strings.IndexAny(line, "{ "); end > 0 {
			name = line[:end]
		}
		if at < 0 || seen[line[:at]] || name != family {
			t.Fatalf("in %s: %q", family, line)
		}
		seen[line[:at]] = true
	}
}

func TestLabelsAreEscaped(t *testing.T) {
	e := &exposition{name: "x"}
	e.sample(0.5, "a", "quote\" slash\\ line\n", "b", "bad\xff")
	if want := `x{a="quote\" slash\\ line\n",b="bad` + "\uFFFD" + `"} 0.5` + "\n"; e.text.String() != want {
		t.Errorf("%q, want %q", e.text.String(), want)
	}
}

func TestShimThatDoesNotAnswerKeepsNobodyBack(t *testing.T) {
	n := newFakeNode(t, 3, 1)
	n.shim(9, "stuck", nil)
	var out bytes.Buffer
	if err := ls(t.Context(), &out, lsOptions{surveyOptions: surveyOptions{cfg: n.cfg, limit: 200 * time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"c001       running  77   1", "c003       running  77   3", "shim 9: it does not answer in time"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing: %q in\n%s", want, &out)
		}
	}
	out.Reset()
	if err := metrics(t.Context(), &out, surveyOptions{cfg: n.cfg}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`holdfast_shim_up{namespace="ns",group="stuck",shim_pid="9"} 0`, `holdfast_shim_threads{namespace="ns",group="stuck",shim_pid="9"} 7`,
		`holdfast_shim_up{namespace="ns",group="c002",shim_pid="2"} 1`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing: %q in\n%s", want, &out)
		}
	}
}

func TestListingShowsShimsAndWhatIsLeft(t *testing.T) {
	n := newFakeNode(t, 1, 1)
	n.write("state/ns/old/address", "unix:///nowhere")
	// One of a pod, which its shim has forgotten.
	n.write("state/ns/app/address", "unix://"+n.socket("c001"))
	var out bytes.Buffer
	if err := ls(t.Context(), &out, lsOptions{surveyOptions: surveyOptions{cfg: n.cfg}, json: true}); err != nil {
		t.Fatal(err)
	}
	var got listing
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Shims) != 1 || len(got.Leaks) != 1 {
		t.Fatalf("%+v", got)
	}
	s := got.Shims[0]
	want := []listedTask{{"app", "running", 77}, {"c001", "running", 77}}
	if diff := cmp.Diff(want, s.Containers); diff != "" || s.Group != "c001" || s.PrivateDirty != 900<<10 || s.Backlog != nil || s.Threads != 7 {
		t.Errorf("%+v\n%s", s, diff)
	}
	if l := got.Leaks[0]; l.ID != "old" || l.Kind != "bundle without shim" {
		t.Errorf("%+v", l)
	}
	out.Reset()
	if err := ls(t.Context(), &out, lsOptions{surveyOptions: surveyOptions{cfg: n.cfg, namespace: "other"}}); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("of another namespace: %s", &out)
	}
	out.Reset()
	if err := ls(t.Context(), &out, lsOptions{surveyOptions: surveyOptions{cfg: n.cfg}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "bundle without shim") || !strings.Contains(out.String(), filepath.Join(n.dir, "state/ns/old")) ||
		!strings.Contains(out.String(), "900KiB") {
		t.Errorf("%s", &out)
	}
}

// stopAfter ends a context when text has been written a number of times.
type stopAfter struct {
	bytes.Buffer
	text string
	n    int
	stop func()
}

func (s *stopAfter) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if strings.Count(s.String(), s.text) >= s.n {
		s.stop()
	}
	return n, err
}

func TestStatsAreWatchedUntilTheInterrupt(t *testing.T) {
	n := newFakeNode(t, 2, 1)
	ctx, cancel := context.WithCancel(deadline(t, runLimit))
	out := &stopAfter{text: "NAMESPACE", n: 3, stop: cancel}
	o := statsOptions{surveyOptions: surveyOptions{cfg: n.cfg}, watch: true, interval: time.Millisecond, terminal: true}
	if err := nodeStats(ctx, out, o); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), clearScreen+"NAMESPACE"); got != 3 {
		t.Errorf("%d tables, want 3: %q", got, out)
	}
	if !strings.Contains(out.String(), "2.0MiB / 12.0MiB   16.67%  0B / 0B    4") {
		t.Errorf("no usage in %s", out)
	}
}

func TestStatsOfOneContainerAreOneLine(t *testing.T) {
	n := newFakeNode(t, 2, 1)
	var out bytes.Buffer
	o := statsOptions{surveyOptions: surveyOptions{cfg: n.cfg, id: "c002"}, json: true}
	if err := nodeStats(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	const want = `{"namespace":"ns","container":"c002","state":"running","cpu_percent":0,"cpu_ns":1500000000,` +
		`"memory_bytes":2097152,"memory_limit_bytes":12582912,"read_bytes":0,"written_bytes":0,"processes":4}` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	o.id = "nobody"
	if err := nodeStats(t.Context(), &out, o); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestProcessorIsComparedWithTheLastLook(t *testing.T) {
	row := func(cpu time.Duration) statsRow {
		return statsRow{Namespace: "ns", Container: "c", usage: &usage{CPU: cpu}}
	}
	began := time.Now()
	rows := []struct {
		before, now time.Duration
		want        float64
	}{{time.Second, 2 * time.Second, 50}, {0, 4 * time.Second, 200}, {time.Second, time.Second, 0}, {2 * time.Second, time.Second, 0}}
	for _, r := range rows {
		now := look{began.Add(2 * time.Second), []statsRow{row(r.now)}}
		now.compare(look{began, []statsRow{row(r.before)}})
		if got := now.rows[0].CPUPercent; got != r.want {
			t.Errorf("%v, then %v: %v%%, want %v%%", r.before, r.now, got, r.want)
		}
	}
	ended := look{began, []statsRow{{Namespace: "ns", Container: "c"}}}
	ended.compare(look{began.Add(-time.Second), []statsRow{row(0)}})
	if ended.rows[0].CPUPercent != 0 {
		t.Error("it has no usage")
	}
}

func TestSizesAndAgesAreForPeople(t *testing.T) {
	sizes := map[uint64]string{0: "0B", 1023: "1023B", 1536: "1.5KiB", 200 << 20: "200MiB", 1<<64 - 1: "16.0EiB"}
	for n, want := range sizes {
		if got := bytesText(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	now := time.Now()
	ages := map[time.Duration]string{0: "0s", -time.Hour: "0s", 90 * time.Second: "90s", 3 * time.Minute: "3m", 5 * time.Hour: "5h", 100 * time.Hour: "4d"}
	for d, want := range ages {
		if got := ageText(now.Add(-d), now); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
	if got := ageText(time.Time{}, now); got != "-" {
		t.Errorf("unknown age: %s", got)
	}
}

// A process table that cannot be read is an error, and no empty node.
func TestNodeWithoutProcessTableIsAnError(t *testing.T) {
	n := newFakeNode(t, 0, 0)
	n.cfg.ProcRoot += "/none"
	for name, do := range map[string]func() error{
		"ls": func() error {
			return ls(t.Context(), &bytes.Buffer{}, lsOptions{surveyOptions: surveyOptions{cfg: n.cfg}})
		},
		"metrics": func() error { return metrics(t.Context(), &bytes.Buffer{}, surveyOptions{cfg: n.cfg}) },
		"stats": func() error {
			return nodeStats(t.Context(), &bytes.Buffer{}, statsOptions{surveyOptions: surveyOptions{cfg: n.cfg}})
		},
	} {
		if err := do(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rows is a sheet with all that a row can be.
func rows() *sheet {
	s := &sheet{}
	s.rule([]line{
		{id: "a", name: "plain", unit: "ms", decimals: 1},
		{id: "a", name: "ratio", unit: "ms", bound: ofTheirs, limit: 0.5},
		{id: "a", name: "added", unit: "ms", added: true, bound: ofTheirs, limit: 0.4},
		{id: "a", name: "added, absolute", unit: "ms", added: true, bound: atMost, limit: 1},
		{id: "a", name: "p90", q: 0.9},
		{id: "b", name: "nothing", bound: ofTheirs, limit: 1},
	}, (&effort{}).counts())
	for side, samples := range map[string][]float64{"ours": {9, 6, 5}, "theirs": {15, 14, 10}, bareName: {3, 4, 100}} {
		for _, v := range samples {
			s.note("a", side, v)
		}
	}
	return s
}

func TestSheetJudges(t *testing.T) {
	want := []struct {
		ours, ratio float64
		met         string
	}{
		{6, 6. / 14, ""}, {6, 6. / 14, "met"}, {2, 0.2, "met"}, {2, 0.2, "not met"}, {9, 0.6, ""},
		{math.NaN(), math.NaN(), "not measured"},
	}
	for i, r := range rows().rows {
		_, met := r.target()
		for what, pair := range map[string][2]float64{
			"ours": {r.value("ours"), want[i].ours}, "ratio": {r.ratio(), want[i].ratio},
		} {
			if pair[0] != pair[1] && !(math.IsNaN(pair[0]) && math.IsNaN(pair[1])) {
				t.Errorf("%s: %s: got %v, want %v", r.name, what, pair[0], pair[1])
			}
		}
		if met != want[i].met {
			t.Errorf("%s: got %q, want %q", r.name, met, want[i].met)
		}
	}
}

func TestSheetIsPrintedAndWritten(t *testing.T) {
	s := rows()
	var text strings.Builder
	s.print(&text, []string{"ours", "theirs", "peer", bareName})
	lines := strings.Split(text.String(), "\n")
	if got := strings.Join(strings.Fields(lines[3]), " "); got != "added ms 2 10 - 4 0.20 ratio ≤ 0.4 met" {
		t.Errorf("got %q", got)
	}
	path := filepath.Join(t.TempDir(), "out")
	if err := s.write(path, map[string]string{"kernel": "x"}, []string{"ours", "peer"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	r := got.Rows[3]
	if len(got.Rows) != 6 || len(r.Values) != 1 || r.Values["ours"] != 2 || *r.Ratio != 0.2 ||
		r.Met != "not met" || len(r.Samples["theirs"]) != 3 || got.Conditions["kernel"] != "x" {
		t.Errorf("got %s", data)
	}
}

func TestNothingIsAddedToNothing(t *testing.T) {
	r := row{line: line{added: true, bound: ofTheirs}, samples: map[string][]float64{
		"ours": {1}, "theirs": {2}, bareName: {3},
	}}
	if got := r.ratio(); !math.IsNaN(got) {
		t.Errorf("got %v", got)
	}
	if _, met := r.target(); !strings.HasPrefix(met, "no ratio") {
		t.Errorf("got %q", met)
	}
}

func TestContendersHaveNames(t *testing.T) {
	for peers, want := range map[string]int{"": 2, "a=x": 3, "a=x,b=y": 4, "a": 0, "=x": 0, "a=": 0, "bare=x": 0, "ours=x": 0, "a=x,a=y": 0} {
		b := &bench{dir: "/d", runtime: "crun"}
		err := b.enter("o", "t", peers)
		if (err != nil) != (want == 0) || err == nil && len(b.shims) != want {
			t.Errorf("%q: %v, %v", peers, b.shims, err)
		}
	}
}

func TestEffortIsInProportion(t *testing.T) {
	e := fullEffort
	e.scale(3, time.Second)
	if e.n != 3 || e.few != 12 || e.many != 60 || e.crowd != 3 || e.kills != 12 || e.watch != time.Second {
		t.Errorf("got %+v", e)
	}
	if e = quickEffort; e.n != 10 {
		t.Errorf("scaled for good: %+v", e)
	}
	e.scale(0, 0)
	if e != quickEffort {
		t.Errorf("got %+v", e)
	}
}

// A quick run keeps its promise on a machine that is too slow for it, with what there is by then.
func TestQuickRunEndsInTime(t *testing.T) {
	var said strings.Builder
	b := &bench{w: &said, effort: effort{limit: 50 * time.Millisecond}}
	run := func(b *bench, ctx context.Context) error { return rest(ctx, time.Minute) }
	begun := false
	later := func(*bench, context.Context) error { begun = true; return nil }
	if err := b.measure(t.Context(), []part{{"slow", run, sizeLines}, {"later", later, nil}}); err != nil {
		t.Error(err)
	}
	if begun || len(b.rows) != len(sizeLines) || !strings.Contains(said.String(), "slow was not finished") {
		t.Errorf("begun: %v, %d rows, said %q", begun, len(b.rows), said.String())
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.measure(gone, []part{{"slow", run, nil}}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

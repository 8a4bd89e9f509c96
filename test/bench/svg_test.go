package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// measured is what plots are drawn of, with three shims.
func measured(dir string) *bench {
	b := &bench{w: io.Discard, plots: &plots{dir: dir, memory: map[string][]point{}, latency: map[string][]delay{}}}
	for i, name := range []string{"ours", "theirs", "a<b"} {
		b.shims = append(b.shims, contender{name: name})
		f := float64(i + 1)
		b.plots.memory[name] = []point{{1, 3 * f}, {10, 20 * f}, {50, 90.5 * f}}
		b.plots.latency[name] = []delay{{1, 0.1 * f, 0.2 * f}, {2, 0.12 * f, 0.31 * f}, {16, 0.9 * f, 2 * f}}
	}
	b.plots.throughput = make([]flow, len(modes))
	for _, m := range plottedModes {
		b.plots.throughput[m.index].rate[ours] = []float64{2000, 1000, 3000}
		b.plots.throughput[m.index].rate[theirs] = []float64{900}
	}
	b.plots.throughput[directMode].direct = true
	return b
}

// elements counts those of a picture, and returns its texts.
func elements(t *testing.T, picture string) (count map[string]int, texts []string) {
	t.Helper()
	count = map[string]int{}
	decoder := xml.NewDecoder(strings.NewReader(picture))
	inside := ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return count, texts
		} else if err != nil {
			t.Fatalf("not XML: %v\n%s", err, picture)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inside = token.Name.Local
			count[inside]++
		case xml.EndElement:
			inside = ""
		case xml.CharData:
			if inside == "text" {
				texts = append(texts, string(token))
			}
		}
	}
}

func TestPlotsAreDrawn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plots")
	b := measured(dir)
	if err := b.plots.write(b); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		paths int
		texts []string
	}{
		"memory": {3, []string{"Memory of idle shims", "containers, each with a shim of its own", "PSS of all shims, MiB",
			"ours", "theirs", "a<b", "0", "100", "300", "10", "50"}},
		"latency": {6, []string{"clients that ask at once", "until the answer, ms", "ours p50", "a<b p99", "1", "2", "16", "6"}},
		"throughput": {2, []string{"how it passes from our processes to the client", "MB/s", "ours", "theirs",
			"direct (first process)", "relay (exec)", "terminal", "2000", "900"}},
	} {
		data, err := os.ReadFile(filepath.Join(dir, name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		count, texts := elements(t, string(data))
		if count["path"] != want.paths {
			t.Errorf("%s: %d paths, want one for each of %d series", name, count["path"], want.paths)
		}
		for _, w := range want.texts {
			if !slices.Contains(texts, w) {
				t.Errorf("%s: no text %q among %q", name, w, texts)
			}
		}
		if bad := strings.Contains(string(data), "NaN") || strings.Contains(string(data), "Inf"); bad || len(data) > 8<<10 {
			t.Errorf("%s: %d bytes, or a value that is no number:\n%s", name, len(data), data)
		}
		if !strings.Contains(string(data), "prefers-color-scheme:dark") {
			t.Errorf("%s has no colours for a dark page", name)
		}
	}
}

func TestPlotsOfTheSameAreTheSame(t *testing.T) {
	first, second := measured(""), measured("")
	for i, pair := range [][2]plot{
		{first.plots.memoryPlot(first.shims), second.plots.memoryPlot(second.shims)},
		{first.plots.latencyPlot(first.shims), second.plots.latencyPlot(second.shims)},
		{first.plots.throughputPlot(), second.plots.throughputPlot()},
	} {
		if pair[0].svg() != pair[1].svg() {
			t.Errorf("plot %d differs from itself", i)
		}
	}
}

func TestWhatWasNotMeasuredIsNotDrawn(t *testing.T) {
	dir := t.TempDir()
	b := &bench{w: io.Discard, plots: &plots{dir: dir}}
	if err := b.plots.write(b); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v", entries, err)
	}
}

func TestScaleHasRoundSteps(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 1: 0.2, 5: 1, 7: 2, 20: 5, 271.5: 100, 3000: 1000, 0.9: 0.2} {
		if got := niceStep(most); got < want*0.999 || got > want*1.001 {
			t.Errorf("up to %v: steps of %v, want %v", most, got, want)
		}
	}
}

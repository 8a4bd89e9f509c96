package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
)

// bareName is the side without a shim: the runtime, called directly.
const bareName = "bare"

// A bound says what a target is about.
type bound int

const (
	none     bound = iota // there is no target
	atMost                // of our value itself
	atLeast               // the same the other way round
	ofTheirs              // at most, of ours divided by theirs
)

// A line is a row of the table: what it is called, and how it comes from what was measured. Each
// part has a table of them; doc.go tells how the samples are taken.
type line struct {
	id       string // in JSON
	name     string
	unit     string
	decimals int
	q        float64 // the quantile of the samples that is the value; 0: the median
	added    bool    // the samples are what comes on top of bare's in the same round
	bound    bound
	limit    float64
}

// A row is a line with what was measured for it, by side.
type row struct {
	line
	samples map[string][]float64
}

// sheet collects rows in the order in which they are to be printed.
type sheet struct {
	rows []*row
}

// rule adds the rows of a part, still empty. In their names counts are put in.
func (s *sheet) rule(lines []line, counts *strings.Replacer) {
	for _, l := range lines {
		l.name = counts.Replace(l.name)
		s.rows = append(s.rows, &row{line: l, samples: map[string][]float64{}})
	}
}

// note adds a sample to every row with that id; an id with no row is a mistake in the program.
func (s *sheet) note(id, side string, value float64) {
	found := false
	for _, r := range s.rows {
		if r.id == id {
			r.samples[side] = append(r.samples[side], value)
			found = true
		}
	}
	if !found {
		panic("no row for " + id)
	}
}

// value is that of a side; NaN if it was not measured.
func (r *row) value(side string) float64 {
	samples := r.samples[side]
	if r.added && side != bareName {
		samples = differences(samples, r.samples[bareName])
	}
	if len(samples) == 0 {
		return math.NaN()
	}
	q := r.q
	if q == 0 {
		q = 0.5
	}
	return quantile(samples, q)
}

// differences are those of samples that were taken in the same round: what the machine did in it has
// met both.
func differences(a, b []float64) []float64 {
	all := make([]float64, min(len(a), len(b)))
	for i := range all {
		all[i] = a[i] - b[i]
	}
	return all
}

// ratio is ours to theirs. What theirs adds may be nothing, or less: then there is no ratio.
func (r *row) ratio() float64 {
	theirs := r.value("theirs")
	if theirs <= 0 {
		return math.NaN()
	}
	return r.value("ours") / theirs
}

// target tells in words what the row should be, and whether it is.
func (r *row) target() (should, met string) {
	is := math.NaN()
	switch r.bound {
	case none:
		return "", ""
	case atMost:
		should, is = strings.TrimSpace(fmt.Sprintf("ours ≤ %g %s", r.limit, r.unit)), r.value("ours")
	case atLeast:
		should, is = strings.TrimSpace(fmt.Sprintf("ours ≥ %g %s", r.limit, r.unit)), r.value("ours")
	case ofTheirs:
		should, is = fmt.Sprintf("ratio ≤ %g", r.limit), r.ratio()
	}
	switch {
	case math.IsNaN(is) && r.value("ours")+r.value("theirs") < math.Inf(1):
		return should, "no ratio: theirs adds nothing"
	case math.IsNaN(is):
		return should, "not measured"
	case r.bound == atLeast && is >= r.limit, r.bound != atLeast && is <= r.limit:
		return should, "met"
	}
	return should, "not met"
}

// print prints the table, with a column for each side. What was not measured is "-".
func (s *sheet) print(w io.Writer, sides []string) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "figure\tunit\t")
	for _, side := range sides {
		fmt.Fprint(table, side, "\t")
	}
	fmt.Fprintln(table, "ratio\ttarget\t")
	for _, r := range s.rows {
		fmt.Fprintf(table, "%s\t%s\t", r.name, r.unit)
		for _, side := range sides {
			fmt.Fprint(table, figure(r.decimals, r.value(side)), "\t")
		}
		should, met := r.target()
		fmt.Fprintf(table, "%s\t%s\t%s\n", figure(2, r.ratio()), should, met)
	}
	_ = table.Flush() // like fmt.Fprint to standard output
}

// A report is the sheet in JSON, with what somebody needs who doubts it: all samples.
type report struct {
	Conditions map[string]string
	Rows       []reportRow
}

type reportRow struct {
	ID, Name, Unit string
	Quantile       float64              `json:",omitempty"`
	Added          bool                 `json:",omitempty"` // to bare
	Values         map[string]float64   // by side
	Ratio          *float64             `json:",omitempty"`
	Target, Met    string               `json:",omitempty"`
	Samples        map[string][]float64 // by side, in the order in which they were taken
}

// write writes a report to a file.
func (s *sheet) write(path string, conditions map[string]string, sides []string) error {
	all := report{Conditions: conditions, Rows: []reportRow{}}
	for _, r := range s.rows {
		values := map[string]float64{}
		for _, side := range sides {
			if v := r.value(side); !math.IsNaN(v) {
				values[side] = v
			}
		}
		out := reportRow{
			ID: r.id, Name: r.name, Unit: r.unit, Quantile: r.q, Added: r.added,
			Values: values, Samples: r.samples,
		}
		if v := r.ratio(); !math.IsNaN(v) {
			out.Ratio = &v
		}
		out.Target, out.Met = r.target()
		all.Rows = append(all.Rows, out)
	}
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

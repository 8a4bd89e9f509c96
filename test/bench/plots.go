package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// plots are what has been measured for the pictures; nil where no picture is wanted.
type plots struct {
	dir        string
	memory     map[string][]point // by side: MiB of PSS over containers
	latency    map[string][]delay // by side
	throughput []flow
}

// A delay is how long an answer takes while some clients ask.
type delay struct {
	clients  int
	p50, p99 float64 // ms
}

// plottedModes are the ways of output in the picture. A terminal is a mode of its own because it is
// always copied.
var plottedModes = []struct {
	name  string
	index int // of modes
}{{"direct (first process)", directMode}, {"relay (exec)", relayMode}, {"terminal", 3}}

// steps are the numbers of containers at which the memory of a crowd is looked at.
func steps(crowd int) []int {
	var all []int
	for _, n := range []int{1, 2, 5, 10, 20, 50, 100, 200, 500} {
		if n < crowd {
			all = append(all, n)
		}
	}
	return append(all, crowd)
}

// write draws the pictures of what has been measured, and says which.
func (p *plots) write(b *bench) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	for _, picture := range []struct {
		name string
		draw plot
	}{
		{"memory", p.memoryPlot(b.shims)}, {"latency", p.latencyPlot(b.shims)}, {"throughput", p.throughputPlot()},
	} {
		if len(picture.draw.series) == 0 {
			fmt.Fprintf(b.w, "no plot of %s: it was not measured\n", picture.name)
			continue
		}
		path := filepath.Join(p.dir, picture.name+".svg")
		if err := os.WriteFile(path, []byte(picture.draw.svg()), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(b.w, "plot: %s\n", path)
	}
	return nil
}

func (p *plots) memoryPlot(shims []contender) plot {
	all := plot{title: "Memory of idle shims", x: "containers, each with a shim of its own", y: "PSS of all shims, MiB"}
	for i, c := range shims {
		if points := p.memory[c.name]; len(points) > 0 {
			all.series = append(all.series, series{name: c.name, side: i, points: points})
		}
	}
	return all
}

func (p *plots) latencyPlot(shims []contender) plot {
	all := plot{title: "Latency of State", x: "clients that ask at once", y: "until the answer, ms", doubling: true}
	for i, c := range shims {
		if len(p.latency[c.name]) == 0 {
			continue
		}
		half, most := series{name: c.name + " p50", side: i}, series{name: c.name + " p99", side: i, dashed: true}
		for _, d := range p.latency[c.name] {
			half.points = append(half.points, point{float64(d.clients), d.p50})
			most.points = append(most.points, point{float64(d.clients), d.p99})
		}
		all.series = append(all.series, half, most)
	}
	return all
}

func (p *plots) throughputPlot() plot {
	all := plot{title: "Throughput of output", x: "how it passes from our processes to the client", y: "MB/s"}
	if len(p.throughput) == 0 {
		return all
	}
	for side, name := range []string{"ours", "theirs"} {
		s := series{name: name, side: side}
		for i, m := range plottedModes {
			s.points = append(s.points, point{float64(i), median(p.throughput[m.index].rate[side])})
		}
		all.series = append(all.series, s)
	}
	for _, m := range plottedModes {
		name := m.name
		if m.index == directMode && !p.throughput[directMode].direct {
			name = "first process, relayed here"
		}
		all.modes = append(all.modes, name)
	}
	return all
}

// crowdMemory notes the memory of as many shims of each side as there are.
func (p *plots) crowdMemory(pids map[string][]int) error {
	for side, all := range pids {
		sum, err := sumOf(all, "Pss:")
		if err != nil {
			return err
		}
		p.memory[side] = append(p.memory[side], point{float64(len(all)), float64(sum) / 1024})
	}
	return nil
}

// sumOf adds up a figure of smaps_rollup of processes, in KiB.
func sumOf(pids []int, field string) (sum int, err error) {
	for _, pid := range pids {
		n, err := number(fmt.Sprintf("/proc/%d/smaps_rollup", pid), field)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// isStep says whether the memory of so many containers is to be looked at before there are more.
func (p *plots) isStep(n, crowd int) bool {
	return p != nil && n < crowd && slices.Contains(steps(crowd), n)
}

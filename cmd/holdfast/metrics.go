package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/node"
)

// metricsLimit bounds the answer for the whole node. Who has not answered by then is down.
const metricsLimit = 900 * time.Millisecond

// metrics prints the whole node in the text format of Prometheus.
func metrics(ctx context.Context, out io.Writer, o surveyOptions) error {
	began := time.Now()
	o.usage = true
	limited, cancel := context.WithTimeout(ctx, metricsLimit)
	defer cancel()
	found, err := node.Read(ctx, o.cfg)
	if err != nil {
		return err
	}
	var shims []surveyed
	for _, s := range found.Shims {
		if o.namespace == "" || s.Namespace == o.namespace {
			shims = append(shims, surveyed{Shim: s})
		}
	}
	askAll(limited, o, shims)
	if err := ctx.Err(); err != nil {
		return err
	}
	e := &exposition{}
	e.shims(shims)
	e.tasks(shims)
	e.leaks(found.Leaks)
	e.family("holdfast_scrape_duration_seconds", "gauge", "How long it took to ask all shims.")
	e.sample(time.Since(began).Seconds())
	_, err = out.Write(e.text.Bytes()) // in one piece: no half of it is ever scraped
	return err
}

// exposition is text in the format of Prometheus: families, and below each its samples.
type exposition struct {
	text bytes.Buffer
	name string // of the family
}

func (e *exposition) family(name, kind, help string) {
	e.name = name
	fmt.Fprintf(&e.text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// labelEscaper writes the value of a label.
var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample adds one of the family, with pairs of a label's name and value.
func (e *exposition) sample(value float64, labels ...string) {
	e.text.WriteString(e.name)
	for i := 0; i+1 < len(labels); i += 2 {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		e.text.WriteByte(separator)
		fmt.Fprintf(&e.text, `%s="%s"`, labels[i], labelEscaper.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")))
	}
	if len(labels) > 0 {
		e.text.WriteByte('}')
	}
	fmt.Fprintf(&e.text, " %s\n", strconv.FormatFloat(value, 'g', -1, 64))
}

func (s *surveyed) labels() []string {
	return []string{"namespace", s.Namespace, "group", s.Group, "shim_pid", strconv.Itoa(s.Pid)}
}

func (e *exposition) shims(shims []surveyed) {
	families := []struct {
		name, kind, help string
		value            func(*surveyed) (value float64, known bool)
	}{
		{"up", "gauge", "Whether the shim has answered.", func(s *surveyed) (float64, bool) {
			return oneIf(s.problem == nil), true
		}},
		{"answer_seconds", "gauge", "How long the shim took to answer.", func(s *surveyed) (float64, bool) {
			return s.took.Seconds(), s.problem == nil
		}},
		{"start_time_seconds", "gauge", "When the shim was started.", func(s *surveyed) (float64, bool) {
			return float64(s.Started.UnixMilli()) / 1000, !s.Started.IsZero()
		}},
		{"memory_private_dirty_bytes", "gauge", "Memory that the shim shares with nobody.", func(s *surveyed) (float64, bool) {
			return float64(s.Memory.PrivateDirty), s.Memory.Resident > 0
		}},
		{"memory_pss_bytes", "gauge", "Memory, with a fair part of what is shared.", func(s *surveyed) (float64, bool) {
			return float64(s.Memory.Proportional), s.Memory.Resident > 0
		}},
		{"memory_rss_bytes", "gauge", "Memory, with all that is shared.", func(s *surveyed) (float64, bool) {
			return float64(s.Memory.Resident), s.Memory.Resident > 0
		}},
		{"threads", "gauge", "Threads of the shim.", func(s *surveyed) (float64, bool) { return float64(s.Threads), true }},
		{"open_files", "gauge", "Descriptors of the shim.", func(s *surveyed) (float64, bool) {
			return float64(s.Files), s.Files >= 0
		}},
		{"event_backlog", "gauge", "Events that no manager has acknowledged.", func(s *surveyed) (float64, bool) {
			if s.facts == nil {
				return 0, false
			}
			return float64(s.facts.backlog), true
		}},
	}
	e.family("holdfast_shim_info", "gauge", "The shims of the node.")
	for i := range shims {
		s := &shims[i]
		e.sample(1, append(s.labels(), "version", s.versionText(), "exe", s.Exe)...)
	}
	for _, f := range families {
		e.family("holdfast_shim_"+f.name, f.kind, f.help)
		for i := range shims {
			if value, known := f.value(&shims[i]); known {
				e.sample(value, shims[i].labels()...)
			}
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (e *exposition) tasks(shims []surveyed) {
	e.family("holdfast_container_state", "gauge", "The containers of the node, and in which state they are.")
	each(shims, func(t surveyedTask, labels []string) { e.sample(1, append(labels, "state", t.state)...) })
	families := []struct {
		name, kind, help string
		value            func(*usage) float64
	}{
		{"cpu_seconds_total", "counter", "Time on a processor.", func(u *usage) float64 { return u.CPU.Seconds() }},
		{"memory_bytes", "gauge", "Memory in use, without cache that is easily given up.", func(u *usage) float64 { return float64(u.Memory) }},
		{"memory_limit_bytes", "gauge", "Limit of memory, 0 for none.", func(u *usage) float64 { return float64(u.MemoryLimit) }},
		{"processes", "gauge", "Processes and threads.", func(u *usage) float64 { return float64(u.Processes) }},
		{"read_bytes_total", "counter", "Bytes read from block devices.", func(u *usage) float64 { return float64(u.Read) }},
		{"written_bytes_total", "counter", "Bytes written to block devices.", func(u *usage) float64 { return float64(u.Written) }},
	}
	for _, f := range families {
		e.family("holdfast_container_"+f.name, f.kind, f.help)
		each(shims, func(t surveyedTask, labels []string) {
			if t.usage != nil {
				e.sample(f.value(t.usage), labels...)
			}
		})
	}
}

// each calls do with all containers that are still there.
func each(shims []surveyed, do func(t surveyedTask, labels []string)) {
	for i := range shims {
		for _, t := range shims[i].tasks {
			if t.state != "gone" {
				do(t, append(shims[i].labels(), "container", t.id))
			}
		}
	}
}

func (e *exposition) leaks(leaks []node.Leak) {
	count := map[node.Kind]int{}
	for _, l := range leaks {
		count[l.Kind]++
	}
	e.family("holdfast_leaks", "gauge", "What was left behind, as it seems.")
	for _, kind := range []node.Kind{node.SocketWithoutProcess, node.ProcessWithoutBundle, node.BundleWithoutShim} {
		e.sample(float64(count[kind]), "kind", string(kind))
	}
}

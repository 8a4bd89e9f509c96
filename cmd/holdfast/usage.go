package main

import (
	"fmt"
	"math"
	"time"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"google.golang.org/protobuf/types/known/anypb"
)

// usage is what a container uses, of either version of control groups.
type usage struct {
	CPU         time.Duration `json:"cpu_ns"`             // in all
	Memory      uint64        `json:"memory_bytes"`       // without the cache that is easily given up
	MemoryLimit uint64        `json:"memory_limit_bytes"` // 0 = none
	Read        uint64        `json:"read_bytes"`
	Written     uint64        `json:"written_bytes"`
	Processes   uint64        `json:"processes"`
}

// noLimit is more memory than any machine has: what the kernel tells for none (version 1: the
// greatest number of whole pages, version 2: the greatest number).
const noLimit = 1 << 60

// decodeUsage returns nil for what is of no type that we know.
func decodeUsage(stats *anypb.Any) *usage {
	message, err := stats.UnmarshalNew()
	if err != nil {
		return nil
	}
	var u usage
	switch m := message.(type) {
	case *stats1.Metrics:
		u = usage1(m)
	case *stats2.Metrics:
		u = usage2(m)
	default:
		return nil
	}
	if u.MemoryLimit >= noLimit {
		u.MemoryLimit = 0
	}
	return &u
}

func usage1(m *stats1.Metrics) usage {
	u := usage{
		CPU:         nanoseconds(m.GetCPU().GetUsage().GetTotal()),
		Memory:      less(m.GetMemory().GetUsage().GetUsage(), m.GetMemory().GetTotalInactiveFile()),
		MemoryLimit: m.GetMemory().GetUsage().GetLimit(),
		Processes:   m.GetPids().GetCurrent(),
	}
	for _, e := range m.GetBlkio().GetIoServiceBytesRecursive() {
		switch e.GetOp() {
		case "Read":
			u.Read += e.GetValue()
		case "Write":
			u.Written += e.GetValue()
		}
	}
	return u
}

func usage2(m *stats2.Metrics) usage {
	u := usage{
		CPU:         nanoseconds(m.GetCPU().GetUsageUsec() * 1000),
		Memory:      less(m.GetMemory().GetUsage(), m.GetMemory().GetInactiveFile()),
		MemoryLimit: m.GetMemory().GetUsageLimit(),
		Processes:   m.GetPids().GetCurrent(),
	}
	for _, e := range m.GetIo().GetUsage() {
		u.Read += e.GetRbytes()
		u.Written += e.GetWbytes()
	}
	return u
}

func nanoseconds(n uint64) time.Duration { return time.Duration(min(n, math.MaxInt64)) }

func less(a, b uint64) uint64 { return a - min(a, b) }

// bytesText is for people: 1536 is "1.5KiB".
func bytesText[N int64 | uint64](n N) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 || value >= 100 {
		return fmt.Sprintf("%.0f%s", value, units[unit])
	}
	return fmt.Sprintf("%.1f%s", value, units[unit])
}

// ageText is for people, in the greatest unit of which there are two: 90 seconds are "90s".
func ageText(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	d := max(now.Sub(since), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/client"
)

// idleLines are about a shim whose container is left alone. The rows after execs are those of the
// same shims.
var idleLines = []line{
	{id: "dirty", name: "private dirty, idle, one container", unit: "KiB", bound: ofTheirs, limit: 0.36},
	{id: "resident", name: "resident, idle", unit: "KiB"},
	{id: "threads", name: "threads, idle", unit: "", bound: atMost, limit: 5},
	{id: "descriptors", name: "descriptors, container with three FIFOs", unit: "", bound: atMost, limit: 16},
	{id: "switches", name: "context switches a minute, idle", unit: "", decimals: 1, bound: atMost, limit: 1},
	{id: "dirty-execs", name: "private dirty, idle again after {few} execs", unit: "KiB", bound: ofTheirs, limit: 0.33},
	{id: "threads-execs", name: "threads, idle again after {many} execs", unit: "", bound: atMost, limit: 7},
}

// crowdLines are about many shims, each with a container that is left alone.
var crowdLines = []line{
	{id: "crowd-pss", name: "PSS per container, {crowd} idle shims", unit: "KiB", bound: ofTheirs, limit: 0.42},
}

// holding is something that a process holds, and where the kernel tells how much (proc(5)).
type holding struct{ id, file, field string }

var (
	atFirst = []holding{
		{"dirty", "smaps_rollup", "Private_Dirty:"}, {"resident", "smaps_rollup", "Rss:"}, {"threads", "status", "Threads:"},
	}
	afterFew  = []holding{{"dirty-execs", "smaps_rollup", "Private_Dirty:"}}
	afterMany = []holding{{"threads-execs", "status", "Threads:"}}
)

// idlers is how many shims of each side are looked at: where objects happen to lie, one has a tenth more than
// another.
const idlers = 3

// shims are one of each side.
type shims map[string]*client.Session

// idleness measures what each shim holds with a container that is left alone, before and after
// execs. Many execs are one shim's of each side.
func (b *bench) idleness(ctx context.Context) error {
	return b.withSets(ctx, nil, func(sets []shims) error {
		if err := b.look(ctx, sets, 0, atFirst); err != nil {
			return err
		}
		for side, s := range sets[0] {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid()))
			if err != nil {
				return err
			}
			b.note("descriptors", side, float64(len(fds)))
		}
		if err := b.watchSwitches(ctx, sets[0]); err != nil {
			return err
		}
		if err := b.look(ctx, sets, b.few, afterFew); err != nil || b.many == 0 {
			return err
		}
		return b.look(ctx, sets[:1], b.many-b.few, afterMany)
	})
}

// withSets is withEach for idlers of each side.
func (b *bench) withSets(ctx context.Context, sets []shims, measure func([]shims) error) error {
	if len(sets) == idlers {
		return measure(sets)
	}
	return b.withEach(ctx, fmt.Sprintf("i%d", len(sets)), func(one map[string]*client.Session) error {
		return b.withSets(ctx, append(sets, one), measure)
	})
}

// look runs execs on every shim, leaves all of them alone, and notes what they hold then.
func (b *bench) look(ctx context.Context, sets []shims, execs int, holdings []holding) error {
	for i := range execs {
		for _, set := range sets {
			for _, s := range set {
				if err := runOne(ctx, s, fmt.Sprintf("e%d", i)); err != nil {
					return err
				}
			}
		}
	}
	if err := rest(ctx, b.idle); err != nil {
		return err
	}
	for _, set := range sets {
		for side, s := range set {
			for _, h := range holdings {
				n, err := number(fmt.Sprintf("/proc/%d/%s", s.Pid(), h.file), h.field)
				if err != nil {
					return err
				}
				b.note(h.id, side, float64(n))
			}
		}
	}
	return nil
}

// watchSwitches counts the context switches of idle shims.
func (b *bench) watchSwitches(ctx context.Context, sessions shims) error {
	before := map[string]int{}
	for side, s := range sessions {
		n, err := switches(s.Pid())
		if err != nil {
			return err
		}
		before[side] = n
	}
	began := time.Now()
	if err := rest(ctx, b.watch); err != nil {
		return err
	}
	minutes := time.Since(began).Minutes()
	for side, s := range sessions {
		n, err := switches(s.Pid())
		if err != nil {
			return err
		}
		b.note("switches", side, float64(n-before[side])/minutes)
	}
	return nil
}

// switches is how often the threads of a process have left a CPU, or were taken off it.
func switches(pid int) (sum int, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range tasks {
		for _, field := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			n, err := number(path, field)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// crowded measures what many shims hold together. Pages that they share count for each of them
// by its share, and they share with their own kind only: nothing is lost by having both kinds at once.
func (b *bench) crowded(ctx context.Context) (err error) {
	var sessions []*client.Session
	defer func() {
		for _, s := range sessions {
			err = errors.Join(err, crash(ctx, s))
		}
	}()
	pids := map[string][]int{}
	for i := range b.crowd {
		for _, c := range b.shims {
			s, _, err := begin(ctx, filepath.Join(b.dir, fmt.Sprintf("c%s-%d", c.short, i)), c, idler(), streams{})
			if s != nil {
				sessions = append(sessions, s)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			pids[c.name] = append(pids[c.name], s.Pid())
		}
		if b.plots.isStep(i+1, b.crowd) {
			if err := errors.Join(rest(ctx, b.idle), b.plots.crowdMemory(pids)); err != nil {
				return err
			}
		}
	}
	if err := rest(ctx, b.idle); err != nil {
		return err
	}
	if b.plots != nil {
		if err := b.plots.crowdMemory(pids); err != nil {
			return err
		}
	}
	for side, all := range pids {
		sum, err := sumOf(all, "Pss:")
		if err != nil {
			return err
		}
		b.note("crowd-pss", side, float64(sum)/float64(len(all)))
	}
	return nil
}

// number returns the number that follows a name in a file.
func number(path, name string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, path)
}

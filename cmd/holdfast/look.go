package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	flag "github.com/spf13/pflag"

	"holdfast/internal/facts"
	"holdfast/internal/proc"
)

// lookVerbs are the verbs that look into a shim. Read only.
var lookVerbs = []verb{
	{"inspect", "[ID]", "print all that a shim knows of itself, as JSON", 0, 1, false, onShim(inspect, nil)},
	{"events", "[ID]", "list the last events, and whether the manager has taken them", 0, 1, false, onShim(listEvents, eventFlags)},
	{"timeline", "ID", "list what was done to a container, step by step", 1, 1, false, onShim(timeline, traceFlag)},
	{"why", "ID", "say what a container is waiting for, and since when", 1, 1, false, onShim(why, jsonFlag)},
	{"stacks", "[ID]", "print what every goroutine of the shim does", 0, 1, false, onShim(stacks, nil)},
}

func traceFlag(f *flag.FlagSet, t *target) {
	jsonFlag(f, t)
	f.BoolVar(&t.trace, "trace", false, "print a trace for chrome://tracing or ui.perfetto.dev")
}

// facts asks the shim for what it knows of itself.
func (t *target) facts(ctx context.Context) (facts.Facts, error) {
	f, err := t.Facts(ctx)
	return f, explain(err)
}

// explain says what else there is where a shim has no such service.
func explain(err error) error {
	if errors.Is(err, errdefs.ErrNotImplemented) {
		return fmt.Errorf("cannot look into the shim: because it is not holdfast's, or older; `holdfast state` and `holdfast ls` tell what any shim tells: %w", err)
	}
	return err
}

func inspect(ctx context.Context, t *target) (int, error) {
	f, err := t.facts(ctx)
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(f)
	if err != nil {
		return 0, err
	}
	return printJSON(data)
}

func stacks(ctx context.Context, t *target) (int, error) {
	text, err := t.Stacks(ctx)
	if err != nil {
		return 0, explain(err)
	}
	fmt.Fprint(stdout, text)
	return 0, nil
}

// why says in plain words what goes on.
func why(ctx context.Context, t *target) (int, error) {
	f, err := t.facts(ctx)
	if err != nil {
		return 0, err
	}
	if _, run, err := findRun(ctx, t.address, t.shimPid); err == nil && run != nil {
		f.Events = nil // of run -d: nobody is to take them before shutdown
	}
	all := reasons(f, t.id, commandsOf(f), time.Now())
	if t.json {
		return 0, writeJSON(stdout, all)
	}
	for _, sentence := range all {
		fmt.Fprintln(stdout, sentence)
	}
	return 0, nil
}

// reasons are what a container may be waiting for. The commands are the shim's children.
func reasons(f facts.Facts, id string, commands []command, now time.Time) []string {
	var all []string
	for _, r := range f.Requests {
		if r.ID == id && r.Op != "Wait" {
			all = append(all, fmt.Sprintf("%s%s has not been answered for %s", r.Op, ofExec(r.Exec), now.Sub(r.Since).Round(time.Millisecond)))
		}
	}
	for _, c := range commands {
		if slices.Contains(c.args, id) {
			all = append(all, fmt.Sprintf("the shim waits for %s: %s", c.name(), proc.Describe(c.family)))
		}
	}
	if waiting := f.Waiting(); len(waiting) > 0 {
		all = append(all, fmt.Sprintf("events wait for the manager: %d, the oldest, %s, for %s; is the manager away?",
			len(waiting), waiting[0].Topic, now.Sub(waiting[0].At).Round(time.Millisecond)))
	}
	i := slices.IndexFunc(f.Containers, func(c facts.Container) bool { return c.ID == id })
	if i < 0 {
		return append(all, "the shim has no container "+id)
	}
	c := f.Containers[i]
	for _, p := range append(c.Execs, facts.Process{State: c.State, Pid: c.Pid, Turn: c.Turn}) {
		if p.Turn != nil {
			all = append(all, fmt.Sprintf("the %s%s is under way for %s, and what else would change that process waits for it",
				p.Turn.Op, ofExec(p.ID), now.Sub(p.Turn.Since).Round(time.Millisecond)))
		}
		if p.Pid == 0 || p.State == "stopped" {
			continue
		}
		if p.State == "paused" {
			all = append(all, fmt.Sprintf("its process%s is paused; holdfast resume lets it go on", ofExec(p.ID)))
			continue // and sleeps in the kernel for that
		}
		if process, ok := proc.Read(p.Pid); ok && process.State == "D" {
			all = append(all, fmt.Sprintf("its process%s is in the kernel, which does not let it go: %v", ofExec(p.ID), process))
		}
	}
	if len(all) == 0 {
		all = append(all, fmt.Sprintf("nothing: its first process is %s, and no request or command is under way", cmp.Or(c.State, "being created")))
	}
	return all
}

func ofExec(id string) string {
	if id == "" {
		return ""
	}
	return " of exec " + id
}

// command is a program that the shim has started and waits for.
type command struct {
	args   []string
	family []proc.Process
}

func (c command) name() string {
	return fmt.Sprintf("%q", strings.Join(c.args[:min(len(c.args), 12)], " "))
}

// commandsOf returns the children of a shim that are not its containers' processes.
func commandsOf(f facts.Facts) []command {
	known := map[int]bool{}
	for _, c := range f.Containers {
		known[c.Pid] = true
		for _, e := range c.Execs {
			known[e.Pid] = true
		}
	}
	var all []command
	for _, pid := range childrenOf(f.Pid) {
		if known[pid] {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue // it has ended
		}
		all = append(all, command{strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00"), proc.Family(pid)})
	}
	return all
}

// childrenOf returns the pids of the children of a process.
func childrenOf(pid int) []int {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, path := range paths {
		text, _ := os.ReadFile(path) // a thread that has ended has none
		for _, field := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"holdfast/internal/node"
)

// lsOptions are those of holdfast ls.
type lsOptions struct {
	surveyOptions
	json bool
}

// ls prints all shims of the node with their containers, and what was left behind.
func ls(ctx context.Context, out io.Writer, o lsOptions) error {
	shims, leaks, err := survey(ctx, o.surveyOptions)
	if err != nil {
		return err
	}
	if o.cfg.ProcRoot == "" { // of this machine
		runs, err := abandonedRuns(ctx)
		if err != nil {
			return err
		}
		for _, r := range runs {
			leaks = append(leaks, r.leak())
		}
	}
	if o.namespace != "" {
		leaks = inNamespace(leaks, o.namespace)
	}
	if o.json {
		return writeJSON(out, newListing(shims, leaks))
	}
	now := time.Now()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tGROUP\tCONTAINER\tSTATE\tPID\tSHIM\tUPTIME\tMEMORY\tTHREADS\tBACKLOG\tVERSION")
	for i := range shims {
		for _, line := range shims[i].lines(now) {
			fmt.Fprintln(table, strings.Join(line, "\t"))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i := range shims {
		if s := &shims[i]; s.problem != nil {
			fmt.Fprintf(out, "shim %d: %v\n", s.Pid, s.problem)
		}
	}
	return printLeaks(out, leaks, now)
}

// lines are those of a shim in the table: one for each container, but at least one.
func (s *surveyed) lines(now time.Time) [][]string {
	tasks := s.tasks
	if len(tasks) == 0 {
		tasks = []surveyedTask{{id: "-", state: "-"}}
		if s.problem != nil {
			tasks[0].state = "?"
		}
	}
	var lines [][]string
	for _, t := range tasks {
		lines = append(lines, []string{
			s.Namespace, s.Group, t.id, t.state, number(t.pid), number(s.Pid), ageText(s.Started, now),
			memoryText(s.Memory), number(s.Threads), s.backlogText(), s.versionText(),
		})
	}
	return lines
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// memoryText is what the node would get back if the shim ended.
func memoryText(m node.Memory) string {
	if m.Resident == 0 {
		return "-"
	}
	return bytesText(m.PrivateDirty)
}

// inNamespace leaves out what is certainly in another namespace. Of sockets nobody knows.
func inNamespace(leaks []node.Leak, namespace string) (left []node.Leak) {
	for _, l := range leaks {
		if l.Namespace == namespace {
			left = append(left, l)
		}
	}
	return left
}

func printLeaks(out io.Writer, leaks []node.Leak, now time.Time) error {
	if len(leaks) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LEFT BEHIND\tAGE\tNAMESPACE\tID\tPID\tPATH")
	for _, l := range leaks {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Kind, ageText(l.Since, now), dash(l.Namespace), dash(l.ID), number(l.Pid), l.Path)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "holdfast gc tells what of this is dead for certain; holdfast delete ID ends a %s, and removes it\n", runWithoutShim)
	return err
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// listing is what ls prints as JSON.
type listing struct {
	Shims []listedShim `json:"shims"`
	Leaks []listedLeak `json:"leaks"`
}

type listedShim struct {
	Namespace    string       `json:"namespace"`
	Group        string       `json:"group"`
	Pid          int          `json:"pid"`
	Address      string       `json:"address"`
	Bundle       string       `json:"bundle"`
	Exe          string       `json:"exe"`
	Version      string       `json:"version,omitempty"`
	Started      time.Time    `json:"started"`
	Threads      int          `json:"threads"`
	Files        int          `json:"files"` // -1: not known
	Resident     int64        `json:"memory_rss_bytes"`
	Proportional int64        `json:"memory_pss_bytes"`
	PrivateDirty int64        `json:"memory_private_dirty_bytes"`
	Backlog      *int         `json:"backlog,omitempty"`
	Containers   []listedTask `json:"containers"`
	Problem      string       `json:"problem,omitempty"`
}

type listedTask struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Pid   int    `json:"pid"`
}

type listedLeak struct {
	Kind      node.Kind `json:"kind"`
	Path      string    `json:"path"`
	Namespace string    `json:"namespace,omitempty"`
	ID        string    `json:"id,omitempty"`
	Pid       int       `json:"pid,omitempty"`
	Address   string    `json:"address,omitempty"`
	Since     time.Time `json:"since"`
}

func newListing(shims []surveyed, leaks []node.Leak) listing {
	l := listing{Shims: []listedShim{}, Leaks: []listedLeak{}}
	for i := range shims {
		s := &shims[i]
		item := listedShim{
			Namespace: s.Namespace, Group: s.Group, Pid: s.Pid, Address: s.Address, Bundle: s.Bundle, Exe: s.Exe,
			Version: strings.TrimPrefix(s.versionText(), "-"), Started: s.Started, Threads: s.Threads, Files: s.Files,
			Resident: s.Memory.Resident, Proportional: s.Memory.Proportional, PrivateDirty: s.Memory.PrivateDirty,
			Containers: []listedTask{},
		}
		if s.facts != nil {
			item.Backlog = &s.facts.backlog
		}
		if s.problem != nil {
			item.Problem = s.problem.Error()
		}
		for _, t := range s.tasks {
			item.Containers = append(item.Containers, listedTask{t.id, t.state, t.pid})
		}
		l.Shims = append(l.Shims, item)
	}
	for _, k := range leaks {
		l.Leaks = append(l.Leaks, listedLeak(k))
	}
	return l
}

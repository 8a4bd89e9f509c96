package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	flag "github.com/spf13/pflag"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

const (
	askLimit = time.Second // for one shim, when all are asked: one that hangs must not hide the others
	atOnce   = 16          // shims that are asked at the same time
)

// found is a shim, and what it says of its containers.
type found struct {
	node.Shim
	Containers []container `json:"containers"`
}

// container is one of a shim's containers.
type container struct {
	ID     string `json:"id"`
	Status string `json:"status"` // of its first process; what went wrong if the shim does not tell
	Pid    uint32 `json:"pid,omitempty"`
}

// inventory is all that there is on a node.
type inventory struct {
	Shims   []found       `json:"shims"`
	Sockets []node.Socket `json:"sockets_without_shim"`
	Bundles []node.Bundle `json:"bundles_without_shim"`
}

func setupList(f *flag.FlagSet) action {
	asJSON := f.Bool("json", false, "print JSON")
	return func(ctx context.Context, _ []string) (int, error) {
		all, err := takeInventory(ctx, node.Config{})
		if err != nil {
			return 0, err
		}
		if *asJSON {
			data, err := json.Marshal(all)
			if err != nil {
				return 0, err
			}
			return printJSON(data)
		}
		return 0, all.print(os.Stdout, time.Now())
	}
}

// takeInventory finds the shims and asks each of them.
func takeInventory(ctx context.Context, cfg node.Config) (inventory, error) {
	n, err := node.Find(ctx, cfg)
	if err != nil {
		return inventory{}, err
	}
	all := inventory{Shims: make([]found, len(n.Shims)), Sockets: n.Sockets, Bundles: n.Bundles}
	slots := make(chan struct{}, atOnce)
	var asked sync.WaitGroup
	for i, s := range n.Shims {
		asked.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all.Shims[i] = found{s, ask(ctx, s)}
		})
	}
	asked.Wait()
	return all, nil
}

// ask asks a shim for the states of its containers.
func ask(ctx context.Context, s node.Shim) []container {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	var all []container
	for _, id := range s.Containers() {
		t := &target{address: s.Address, namespace: s.Namespace, id: id}
		all = append(all, t.summary(ctx))
	}
	return all
}

// summary asks for the state of one container.
func (t *target) summary(ctx context.Context) container {
	c := container{ID: t.id}
	if t.address == "" {
		c.Status = "its shim does not listen"
		return c
	}
	if err := t.dial(ctx); err != nil {
		c.Status = err.Error()
		return c
	}
	defer t.Close()
	state, err := t.State(ctx, &task.StateRequest{ID: t.id})
	if err != nil {
		c.Status = err.Error()
		return c
	}
	c.Status, c.Pid = strings.ToLower(state.GetStatus().String()), state.GetPid()
	return c
}

func (all inventory) print(w io.Writer, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tGROUP\tPID\tUPTIME\tMEMORY\tTHREADS\tFILES\tSHIM\tCONTAINERS")
	for _, s := range all.Shims {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\t%s\n", s.Namespace, s.Group, s.Pid, age(now.Sub(s.Started)),
			kibi(s.Private), s.Threads, s.Files, filepath.Base(s.Program), s.describe())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if n := len(all.Sockets); n > 0 {
		fmt.Fprintf(w, "\nsockets that nobody listens on: %d; `holdfast gc` names and removes them\n", n)
	}
	if len(all.Bundles) > 0 {
		fmt.Fprintln(w, "\nbundles without a shim; their manager removes them when it is started again:")
		for _, b := range all.Bundles {
			fmt.Fprintf(w, "  %s\n", b.Path)
		}
	}
	return nil
}

// describe is a line about the containers.
func (s found) describe() string {
	var words []string
	for _, c := range s.Containers {
		words = append(words, fmt.Sprintf("%s (%s)", c.ID, c.Status))
	}
	return strings.Join(words, ", ")
}

// age is how long something has lasted, in its largest unit.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// kibi is a number of bytes for people.
func kibi(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// locate finds the shim that is meant: the one at --address, or the one that has the container.
func (t *target) locate(ctx context.Context) error {
	if t.address != "" {
		if t.namespace == "" {
			t.namespace = client.DefaultNamespace
		}
		return nil
	}
	if t.id == "" {
		return fmt.Errorf("cannot choose a shim: because neither a container nor --address is given; `holdfast ls` lists the shims")
	}
	s, err := node.Lookup(ctx, node.Config{}, t.namespace, t.id)
	if err != nil {
		return err
	}
	t.address, t.namespace = s.Address, s.Namespace
	return nil
}

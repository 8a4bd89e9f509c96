package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

const (
	// surveyWidth is how many shims are asked at a time.
	surveyWidth = 32
	// surveyLimit bounds how long one shim is waited for: one that does not answer is told of, and
	// does not keep the others back.
	surveyLimit = 2 * time.Second
)

// surveyed is a shim, and what it says itself.
type surveyed struct {
	node.Shim
	tasks   []surveyedTask
	facts   *shimFacts    // nil if the shim tells nothing of itself
	took    time.Duration // all answers
	problem error         // why something is missing
}

// surveyedTask is one container of a shim.
type surveyedTask struct {
	id    string
	state string // as in the task API in small letters, or "gone" if the shim knows it no more
	pid   int
	usage *usage // nil unless asked for, or if the shim cannot tell
}

// shimFacts are what only shims of ours tell.
type shimFacts struct {
	version string
	backlog int // events that no manager has acknowledged
}

// surveyOptions say what is asked.
type surveyOptions struct {
	cfg       node.Config
	namespace string // "" = all
	id        string // only the shim that has it, and only that container; "" = all
	usage     bool
	width     int // "0" = surveyWidth
	limit     time.Duration
}

// survey asks all shims of the node. What a shim does not answer is noted in surveyed.problem.
func survey(ctx context.Context, o surveyOptions) ([]surveyed, []node.Leak, error) {
	found, err := node.Read(ctx, o.cfg)
	if err != nil {
		return nil, nil, err
	}
	shims := found.Shims
	if o.id != "" {
		s, err := node.Lookup(ctx, o.cfg, o.namespace, o.id)
		if err != nil {
			return nil, nil, err
		}
		shims = []node.Shim{s}
	}
	var all []surveyed
	for _, s := range shims {
		if o.namespace == "" || s.Namespace == o.namespace {
			all = append(all, surveyed{Shim: s})
		}
	}
	askAll(ctx, o, all)
	return all, found.Leaks, ctx.Err()
}

// askAll asks several shims at a time, but no more than o.width.
func askAll(ctx context.Context, o surveyOptions, all []surveyed) {
	if o.width <= 0 {
		o.width = surveyWidth
	}
	if o.limit <= 0 {
		o.limit = surveyLimit
	}
	next := make(chan *surveyed)
	var workers sync.WaitGroup
	for range min(o.width, len(all)) {
		workers.Go(func() { // ends with the list
			for s := range next {
				limited, cancel := context.WithTimeout(ctx, o.limit)
				began := time.Now()
				s.problem = s.ask(limited, o)
				s.took = time.Since(began)
				cancel()
			}
		})
	}
	for i := range all {
		next <- &all[i]
	}
	close(next)
	workers.Wait()
}

// ask asks a shim for its containers, those that its bundles name.
func (s *surveyed) ask(ctx context.Context, o surveyOptions) error {
	if s.Address == "" {
		return errors.New("cannot ask it: because its socket is not known; holdfast sees more if it is run by root")
	}
	shim, err := reach(ctx, s.Address, s.Namespace)
	if err != nil {
		return explainSilence(err)
	}
	defer shim.Close()
	s.facts = askFacts(ctx, shim)
	ids := s.Containers()
	if len(ids) == 0 {
		ids = []string{s.ID} // its bundle may be where we do not look
	}
	if o.id != "" {
		ids = []string{o.id}
	}
	for _, id := range ids {
		t, err := askTask(ctx, shim, id, o.usage)
		if err != nil {
			return explainSilence(err)
		}
		s.tasks = append(s.tasks, t)
	}
	return nil
}

func explainSilence(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it does not answer in time; holdfast stacks tells what it does")
	}
	return err
}

// reach connects to a shim, in the newest version of the service that it has.
func reach(ctx context.Context, address, namespace string) (*client.Shim, error) {
	shim, err := client.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	shim.Namespace = namespace
	_, err = shim.Connect(ctx, &task.ConnectRequest{})
	if errors.Is(err, errdefs.ErrNotImplemented) {
		shim.Version = 2
		_, err = shim.Connect(ctx, &task.ConnectRequest{})
	}
	// What Connect says does not matter, only that somebody answers: older shims want an id.
	var refused *client.Error
	if err != nil && !errors.As(err, &refused) {
		shim.Close()
		return nil, err
	}
	return shim, nil
}

// askTask returns the state of one container, and its usage if wanted. Only a shim that does not
// answer is an error.
func askTask(ctx context.Context, shim *client.Shim, id string, withUsage bool) (surveyedTask, error) {
	t := surveyedTask{id: id}
	state, err := shim.State(ctx, &task.StateRequest{ID: id})
	var refused *client.Error
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		t.state = "gone"
		return t, nil
	case errors.As(err, &refused):
		t.state = "unknown"
		return t, nil
	case err != nil:
		return t, err
	}
	t.state, t.pid = stateName(state.GetStatus()), int(state.GetPid())
	if !withUsage {
		return t, nil
	}
	response, err := shim.Stats(ctx, &task.StatsRequest{ID: id})
	switch {
	case errors.As(err, &refused): // it has ended, or there is no control group of its own
	case err != nil:
		return t, err
	default:
		t.usage = decodeUsage(response.GetStats())
	}
	return t, nil
}

func stateName(s tasktypes.Status) string { return strings.ToLower(s.String()) }

// askFacts asks a shim what only ours tell, nil for others.
func askFacts(ctx context.Context, shim *client.Shim) *shimFacts {
	f, err := shim.Facts(ctx)
	if err != nil {
		return nil // what matters of it is told by the next call
	}
	return &shimFacts{version: f.Version, backlog: len(f.Waiting())}
}

// backlogText is the number of events that wait for a manager, "-" if the shim does not say.
func (s *surveyed) backlogText() string {
	if s.facts == nil {
		return "-"
	}
	return fmt.Sprint(s.facts.backlog)
}

// versionText is what the shim says, or else its program.
func (s *surveyed) versionText() string {
	if s.facts != nil && s.facts.version != "" {
		return s.facts.version
	}
	if s.Version == "" {
		return "-"
	}
	return s.Version
}

// writeJSON prints v as one document.
func writeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/facts"
)

// Facts returns what the shim tells of itself, with requests by their age, the oldest first, and
// containers by their ID; the sorting is not the shim's, in which it would cost 50 KB. Shims other than
// holdfast's answer errdefs.ErrNotImplemented.
func (s *Shim) Facts(ctx context.Context) (facts.Facts, error) {
	return s.facts(ctx, facts.MethodFacts, "")
}

// Follow returns the events that the shim tells of, once their revision is not the given one or nothing more will
// happen to them. Errors are those of Facts; shims of holdfast's first days, too, do not know it.
func (s *Shim) Follow(ctx context.Context, revision uint64) (facts.Facts, error) {
	return s.facts(ctx, facts.MethodEvents, strconv.FormatUint(revision, 10))
}

func (s *Shim) facts(ctx context.Context, method, value string) (facts.Facts, error) {
	var f facts.Facts
	text, err := s.debug(ctx, method, value)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("cannot understand the facts of the shim: because %w; use a holdfast of its version", err)
	}
	slices.SortFunc(f.Requests, func(a, b facts.Request) int { return a.Since.Compare(b.Since) })
	slices.SortFunc(f.Containers, func(a, b facts.Container) int { return strings.Compare(a.ID, b.ID) })
	return f, nil
}

// Stacks returns what every goroutine of the shim does, as Go writes it. Errors are those of Facts.
func (s *Shim) Stacks(ctx context.Context) (string, error) {
	text, err := s.debug(ctx, facts.MethodStacks, "")
	return string(text), err
}

// EventOf is what a shim tells of an event of its own.
func EventOf(e facts.Event) Event {
	return Event{Sent: e.At, Topic: e.Topic, Message: decode(&anypb.Any{TypeUrl: e.Type, Value: e.Value})}
}

func (s *Shim) debug(ctx context.Context, method, value string) ([]byte, error) {
	var answer anypb.Any
	if err := s.client.Call(ctx, facts.Service, method, &anypb.Any{Value: []byte(value)}, &answer); err != nil {
		return nil, err
	}
	if answer.GetTypeUrl() != facts.TypeURL(method) {
		return nil, fmt.Errorf("cannot understand the answer to %s: because it is a %q", method, answer.GetTypeUrl())
	}
	return answer.GetValue(), nil
}

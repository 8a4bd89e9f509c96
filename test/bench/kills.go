package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// killLines are about the time from a call of Kill, for a first process, to its TaskExit at the
// events server.
var killLines = []line{
	{id: "kill", name: "kill to TaskExit", unit: "ms", decimals: 2, bound: ofTheirs, limit: 0.5},
	{id: "kill", name: "kill to TaskExit, p99", unit: "ms", decimals: 2, q: 0.99, bound: ofTheirs, limit: 0.5},
}

// deaths measures kills, each of a container on a shim of its own.
func (b *bench) deaths(ctx context.Context) error {
	return b.takeTurns(ctx, warmUp, b.kills, func(round int, c contender) error {
		dir := filepath.Join(b.dir, fmt.Sprintf("k%d-%s", round+warmUp, c.short))
		took, err := kill(ctx, dir, c)
		if err == nil && round >= 0 {
			b.note("kill", c.name, ms(took))
		}
		return errors.Join(err, os.RemoveAll(dir))
	}, nil)
}

// kill starts a container that does nothing, and kills it once its start has been told.
func kill(ctx context.Context, dir string, shim contender) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	s, _, err := begin(ctx, dir, shim, idler(), streams{})
	if s != nil {
		defer func() { err = errors.Join(err, crash(ctx, s)) }()
	}
	if err != nil {
		return 0, err
	}
	id := s.Config.ID
	_, err = s.Events.Wait(ctx, func(e client.Event) bool { return e.Topic == "/tasks/start" })
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := s.Kill(ctx, &task.KillRequest{ID: id, Signal: uint32(unix.SIGKILL)}); err != nil {
		return 0, err
	}
	exit, err := s.Events.Wait(ctx, client.Exits(id, ""))
	if err != nil {
		return 0, err
	}
	return exit.At.Sub(began), nil
}

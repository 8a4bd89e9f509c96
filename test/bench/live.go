package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// The phases of a life. The last one is the whole of it.
const (
	start  = iota // the start action, and the first answer of the daemon
	create        // the runtime makes the container
	run           // from the call of Start to the exit of `true`
	remove        // Delete
	end           // Shutdown, the end of the daemon, and the delete action
	whole
	phases
)

var phaseNames = [phases]string{"start", "create", "run", "delete", "end", "whole life"}

// lifeLimit bounds a life, so that a shim that hangs ends the measurement.
const lifeLimit = time.Minute

// live takes a container that runs `true` from the start action to the delete action, in dir, which
// it makes and removes. It returns how long each phase took.
func live(ctx context.Context, dir, shim string) (took [phases]time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	c, err := prepare(dir, shim, "true")
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	began := time.Now()
	last := began
	lap := func(phase int) {
		now := time.Now()
		took[phase] = now.Sub(last)
		last = now
	}
	s, err := client.Launch(ctx, dir, c, nil)
	if err != nil {
		return took, err
	}
	lap(start)
	if err := through(ctx, s, lap); err != nil {
		_, _, crashErr := s.Crash(context.WithoutCancel(ctx))
		return took, errors.Join(err, crashErr)
	}
	_, err = s.End(ctx)
	lap(end)
	took[whole] = time.Since(began)
	if errors.Is(err, client.ErrWarning) {
		err = nil
	}
	return took, err
}

// through takes the container from its creation to its deletion.
func through(ctx context.Context, s *client.Session, lap func(phase int)) error {
	id := s.Config.ID
	if _, err := s.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: s.Config.Bundle}); err != nil {
		return err
	}
	lap(create)
	if _, err := s.Start(ctx, &task.StartRequest{ID: id}); err != nil {
		return err
	}
	exit, err := s.Wait(ctx, &task.WaitRequest{ID: id})
	if err != nil {
		return err
	}
	lap(run)
	if exit.ExitStatus != 0 {
		return fmt.Errorf("true ended with %d", exit.ExitStatus)
	}
	_, err = s.Delete(ctx, &task.DeleteRequest{ID: id})
	lap(remove)
	return err
}

// prepare makes dir and a bundle in it.
func prepare(dir, shim string, args ...string) (client.StartConfig, error) {
	id := "bench-" + filepath.Base(dir)
	bundle := filepath.Join(dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return client.StartConfig{}, err
	}
	err := client.NewBundle(bundle, client.BundleConfig{Args: args})
	return client.StartConfig{Binary: shim, ID: id, Bundle: bundle, SocketDir: filepath.Join(dir, "s")}, err
}

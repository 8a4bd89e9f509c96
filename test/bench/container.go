package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// streams are what a request names for a process; "" is /dev/null.
type streams struct{ stdin, stdout, stderr string }

// idler is a container that does nothing.
func idler() client.BundleConfig {
	return client.BundleConfig{Args: []string{"sleep", "1000"}}
}

// prepare makes dir and a bundle in it.
func prepare(dir string, shim contender, cfg client.BundleConfig) (client.StartConfig, error) {
	id := "bench-" + filepath.Base(dir)
	bundle := filepath.Join(dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return client.StartConfig{}, err
	}
	err := client.NewBundle(bundle, cfg)
	return client.StartConfig{
		Binary: shim.path, ID: id, Bundle: bundle, SocketDir: filepath.Join(dir, "s"), Options: shim.options,
	}, err
}

// begin starts a container on a shim of its own, in dir, which it makes. It returns the pid of the
// first process. The caller ends the session by crash, also after an error if there is one.
func begin(
	ctx context.Context, dir string, shim contender, cfg client.BundleConfig, io streams,
) (*client.Session, int, error) {
	c, err := prepare(dir, shim, cfg)
	if err != nil {
		return nil, 0, err
	}
	s, err := client.Launch(ctx, dir, c, nil)
	if err != nil {
		return nil, 0, err
	}
	_, err = s.Create(ctx, &task.CreateTaskRequest{
		ID: s.Config.ID, Bundle: s.Config.Bundle, Options: s.Config.Options, Terminal: cfg.Terminal,
		Stdin: io.stdin, Stdout: io.stdout, Stderr: io.stderr,
	})
	if err != nil {
		return s, 0, err
	}
	started, err := s.Start(ctx, &task.StartRequest{ID: s.Config.ID})
	return s, int(started.GetPid()), err
}

// runExec starts an exec in a container that begin has started, and returns its pid.
func runExec(
	ctx context.Context, s *client.Session, cfg client.BundleConfig, io streams,
) (int, error) {
	const id = "e"
	spec, err := client.ExecSpec(cfg)
	if err != nil {
		return 0, err
	}
	_, err = s.Exec(ctx, &task.ExecProcessRequest{
		ID: s.Config.ID, ExecID: id, Spec: spec, Terminal: cfg.Terminal,
		Stdin: io.stdin, Stdout: io.stdout, Stderr: io.stderr,
	})
	if err != nil {
		return 0, err
	}
	started, err := s.Start(ctx, &task.StartRequest{ID: s.Config.ID, ExecID: id})
	return int(started.GetPid()), err
}

// beginMode is begin, or, with exec, begin and runExec: the process in question is the exec.
func beginMode(
	ctx context.Context, dir string, shim contender, cfg client.BundleConfig, io streams, exec bool,
) (*client.Session, int, error) {
	if !exec {
		return begin(ctx, dir, shim, cfg, io)
	}
	first := idler()
	first.Mounts = cfg.Mounts
	s, _, err := begin(ctx, dir, shim, first, streams{})
	if err != nil {
		return s, 0, err
	}
	pid, err := runExec(ctx, s, cfg, io)
	return s, pid, err
}

// crash kills the shim and has its container removed, also when ctx has ended.
func crash(ctx context.Context, s *client.Session) error {
	_, _, err := s.Crash(context.WithoutCancel(ctx))
	return err
}

// runOne runs an exec of `true` from Exec to Delete.
func runOne(ctx context.Context, s *client.Session, exec string) error {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	spec, err := client.ExecSpec(client.BundleConfig{Args: []string{"true"}})
	if err != nil {
		return err
	}
	id := s.Config.ID
	if _, err := s.Exec(ctx, &task.ExecProcessRequest{ID: id, ExecID: exec, Spec: spec}); err != nil {
		return err
	}
	if _, err := s.Start(ctx, &task.StartRequest{ID: id, ExecID: exec}); err != nil {
		return err
	}
	exit, err := s.Wait(ctx, &task.WaitRequest{ID: id, ExecID: exec})
	if err != nil {
		return err
	}
	if exit.ExitStatus != 0 {
		return fmt.Errorf("true ended with %d", exit.ExitStatus)
	}
	_, err = s.Delete(ctx, &task.DeleteRequest{ID: id, ExecID: exec})
	return err
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// A bareContainer is one that the runtime is told about directly, with the arguments that a shim
// uses: its times are the floor below which no shim gets.
type bareContainer struct {
	runtime, root, id, dir string
}

// newBare makes dir and a bundle in it.
func (b *bench) newBare(dir string, cfg client.BundleConfig) (*bareContainer, error) {
	c, err := prepare(dir, contender{}, cfg)
	return &bareContainer{b.runtime, filepath.Join(b.dir, "state", bareName), c.ID, c.Bundle}, err
}

// call runs the runtime. Its streams, and so the container's, are /dev/null.
func (c *bareContainer) call(ctx context.Context, args ...string) error {
	log := filepath.Join(c.dir, "log.json")
	args = append([]string{"--root", c.root, "--log", log, "--log-format", "json"}, args...)
	cmd := exec.CommandContext(ctx, c.runtime, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2") // as containerd sets for shims, and so for theirs
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("%s: %w: %s", cmd, err, bytes.TrimSpace(said))
	}
	return nil
}

// create makes the container and returns the pid of its first process.
func (c *bareContainer) create(ctx context.Context) (int, error) {
	file := filepath.Join(c.dir, "init.pid")
	if err := c.call(ctx, "create", "--bundle", c.dir, "--pid-file", file, c.id); err != nil {
		return 0, err
	}
	return readPid(file)
}

// remove deletes the container, running or not.
func (c *bareContainer) remove(ctx context.Context) error {
	return c.call(context.WithoutCancel(ctx), "delete", "--force", c.id)
}

// execute runs an exec of the container to its end. process is a file.
func (c *bareContainer) execute(ctx context.Context, process, id string) error {
	file := filepath.Join(c.dir, id+".pid")
	err := c.call(ctx, "exec", "--process", process, "--detach", "--pid-file", file, c.id)
	if err != nil {
		return err
	}
	pid, err := readPid(file)
	if err != nil {
		return err
	}
	return awaitEnd(ctx, pid)
}

func readPid(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// awaitEnd waits until a process has ended, or is gone already.
func awaitEnd(ctx context.Context, pid int) error {
	p, err := client.OpenProcess(pid)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Wait(ctx)
}

// bareLife is live without a shim.
func (b *bench) bareLife(ctx context.Context, dir string) (took [phases]time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, lifeLimit)
	defer cancel()
	c, err := b.newBare(dir, client.BundleConfig{Args: []string{"true"}})
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	pid, err := c.create(ctx)
	if err != nil {
		return took, err
	}
	took[create] = time.Since(began)
	p, err := client.OpenProcess(pid)
	if err != nil {
		return took, errors.Join(err, c.remove(ctx))
	}
	defer p.Close()
	began = time.Now()
	if err := errors.Join(c.call(ctx, "start", c.id), p.Wait(ctx)); err != nil {
		return took, errors.Join(err, c.remove(ctx))
	}
	took[run] = time.Since(began)
	began = time.Now()
	err = c.call(ctx, "delete", c.id)
	took[remove] = time.Since(began)
	return took, err
}

// writeProcess writes the specification of an exec for the runtime.
func (c *bareContainer) writeProcess(cfg client.BundleConfig) (string, error) {
	spec, err := client.ExecSpec(cfg)
	if err != nil {
		return "", err
	}
	if !json.Valid(spec.Value) {
		return "", fmt.Errorf("the process of an exec is not JSON: %q", spec.Value)
	}
	path := filepath.Join(c.dir, "process.json")
	return path, os.WriteFile(path, spec.Value, 0o600)
}

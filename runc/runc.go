package runc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Runtime is the runtime's binary as one container uses it. The zero values of ID, Root and
// Bundle are not usable. Its methods may be called concurrently.
type Runtime struct {
	Binary        string // name to be found in PATH, or absolute path; empty: runc
	Root          string // where the runtime keeps its state; holds the namespace already
	Bundle        string // absolute; working directory of each command
	ID            string // the container
	SystemdCgroup bool   // cgroups are made by systemd
	// Ended is told of each command when it is over; it must not block. It may be nil.
	Ended func(Call)

	spare spareLogs
}

// Call is a command that has ended.
type Call struct {
	Verb   string
	Exec   string // the id of the exec that it ran; empty for all other verbs
	Began  time.Time
	Failed bool
}

// Limits of what a command may say on its standard output.
const (
	pidsLimit     = 16 << 20 // some 10⁶ pids
	featuresLimit = 1 << 20
)

// Start lets the created init process run the container's program. It returns after the hooks.
func (r *Runtime) Start(ctx context.Context) error { return r.plain(ctx, "start") }

// Pause freezes all processes of the container.
func (r *Runtime) Pause(ctx context.Context) error { return r.plain(ctx, "pause") }

// Resume thaws all processes of the container.
func (r *Runtime) Resume(ctx context.Context) error { return r.plain(ctx, "resume") }

// Delete removes the container from the runtime, with its cgroups. A created container is
// killed first; one that runs only by force. The error is ErrNotFound if there is no such
// container, except by force, to which that is success.
func (r *Runtime) Delete(ctx context.Context, force bool) error {
	r.spare.drop()
	if force {
		return r.plain(ctx, "delete", "--force")
	}
	return r.plain(ctx, "delete")
}

// Kill sends sig to the init process, or to all processes of the container. The runtime is
// given the number, so that signal 0 and real-time signals arrive. The error is ErrNotRunning if
// the container is dead and ErrNotFound if it does not exist; to containerd both are NotFound.
func (r *Runtime) Kill(ctx context.Context, sig syscall.Signal, all bool) error {
	var args []string
	if all {
		args = append(args, "--all") // a hidden no-op since runc 1.2
	}
	args = append(args, r.ID, strconv.Itoa(int(sig)))
	return r.execute(ctx, command{verb: "kill", args: args})
}

// Update changes the container's limits. resources is the JSON of the runtime specification's
// LinuxResources.
func (r *Runtime) Update(ctx context.Context, resources []byte) error {
	stdin, err := newBuffer("resources")
	if err != nil {
		return r.failure("update", err)
	}
	defer stdin.Close()
	if err := stdin.fill(resources); err != nil {
		return r.failure("update", err)
	}
	return r.execute(ctx, command{verb: "update", args: []string{"--resources=-", r.ID}, stdin: stdin.File})
}

// Pids returns the pids of all processes in the container's cgroup, as our pid namespace numbers
// them. A container that has stopped has none.
func (r *Runtime) Pids(ctx context.Context) ([]int, error) {
	out, err := r.output(ctx, command{verb: "ps", args: []string{"--format", "json", r.ID}}, pidsLimit)
	if err != nil {
		return nil, err
	}
	pids, err := parsePids(out)
	if err != nil {
		return nil, r.failure("ps", err)
	}
	return pids, nil
}

// Features returns what the runtime called binary says about itself: the JSON of the runtime
// specification's Features. Runtimes of before 2022 do not know the verb.
func Features(ctx context.Context, binary string) ([]byte, error) {
	r := &Runtime{Binary: binary}
	out, err := r.output(ctx, command{verb: "features", bare: true}, featuresLimit)
	if err != nil {
		return nil, err
	}
	if !json.Valid(out) {
		return nil, r.failure("features", errors.New("what the runtime printed is not JSON"))
	}
	return out, nil
}

// plain runs a verb that takes flags and the container's id.
func (r *Runtime) plain(ctx context.Context, verb string, flags ...string) error {
	return r.execute(ctx, command{verb: verb, args: append(flags, r.ID)})
}

// output runs c and returns what it printed, which may be at most limit bytes.
func (r *Runtime) output(ctx context.Context, c command, limit int64) ([]byte, error) {
	stdout, err := newBuffer("output")
	if err != nil {
		return nil, r.failure(c.verb, err)
	}
	defer stdout.Close()
	c.stdout = stdout.File
	if err := r.execute(ctx, c); err != nil {
		return nil, err
	}
	out, err := stdout.all(limit)
	if err != nil {
		return nil, r.failure(c.verb, fmt.Errorf("read the runtime's output: %w", err))
	}
	return out, nil
}

// parsePids reads what ps prints: a JSON array of pids, or null.
func parsePids(out []byte) ([]int, error) {
	var pids []int
	if err := json.Unmarshal(bytes.TrimSpace(out), &pids); err != nil {
		return nil, fmt.Errorf("the runtime printed no list of pids: %w", err)
	}
	for _, pid := range pids {
		if pid < 1 || pid > maxPid {
			return nil, fmt.Errorf("the runtime printed %d, which no process can have as its pid", pid)
		}
	}
	return pids, nil
}

// binary is the name the runtime is called by.
func (r *Runtime) binary() string {
	if r.Binary == "" {
		return "runc"
	}
	return r.Binary
}

// environment is ours, but for the socket by which runc would tell systemd that we are ready.
func environment() []string {
	env := os.Environ()
	kept := env[:0]
	for _, v := range env {
		if !strings.HasPrefix(v, "NOTIFY_SOCKET=") {
			kept = append(kept, v)
		}
	}
	return kept
}

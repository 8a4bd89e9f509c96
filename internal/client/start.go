package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Versions of containerd that are imitated unless StartConfig asks for another.
const (
	currentContainerd = "2.4.2"
	legacyContainerd  = "2.2.0"
)

// pipeLimit is how long the output of a shim's action may stay open after the action has ended.
// containerd would wait for ever for a daemon that has inherited it (contract 1.6 step 8).
const pipeLimit = 3 * time.Second

// StartConfig is what containerd knows when it runs an action of a shim.
type StartConfig struct {
	Binary       string     // path of the shim, or a name to look up in PATH
	ID           string     // of the container
	Namespace    string     // of containerd
	Bundle       string     // bundle directory; working directory of the action
	Address      string     // containerd's gRPC socket; CRI-O passes none
	TTRPCAddress string     // where events go
	SocketDir    string     // directory for the shim's socket; not known to legacy managers
	Debug        bool       // as if containerd logged at level debug
	Legacy       bool       // start as containerd up to 2.2 does
	Containerd   string     // version to imitate; "" = 2.4.2, or 2.2.0 if Legacy
	Options      *anypb.Any // runtime options, or nil; the type URL is sent as it is
	Env          []string   // more variables, as if containerd itself had them
}

// Start runs the start action and returns what the shim answered, read as containerd reads it:
// standard output and error together, so that a word on standard error spoils the answer. The
// log FIFO should exist already, see OpenLog. When ctx ends the action is killed.
//
// A legacy manager gets no more than an address; it is returned as version 2, protocol ttrpc.
func Start(ctx context.Context, cfg StartConfig) (*bootstrap.BootstrapResult, error) {
	stdin, err := cfg.parameters()
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	var output bytes.Buffer
	cmd := cfg.command(ctx, cfg.flags("start"))
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := run(ctx, cmd); err != nil {
		return nil, fmt.Errorf("start shim: %s: %w", text(output.Bytes()), err)
	}
	result, err := parseResult(output.Bytes(), cfg.Legacy)
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	return result, nil
}

// Delete runs the delete action, which a manager does each time the connection to a shim ends,
// and returns its answer and what it wrote to standard error. Containerd logs the latter as a
// warning, so that it should be empty; containerd gives the action five seconds (contract 2.2).
func Delete(ctx context.Context, cfg StartConfig) (*task.DeleteResponse, string, error) {
	var stdout, stderr bytes.Buffer
	cmd := cfg.command(ctx, cfg.deleteFlags())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := run(ctx, cmd); err != nil {
		return nil, stderr.String(), fmt.Errorf("delete %s: %s: %w", cfg.ID, text(stderr.Bytes()), err)
	}
	response := &task.DeleteResponse{}
	if err := proto.Unmarshal(stdout.Bytes(), response); err != nil {
		return nil, stderr.String(), fmt.Errorf("delete %s: decode answer %q: %w", cfg.ID, stdout.Bytes(), err)
	}
	return response, stderr.String(), nil
}

// command prepares the shim for execution: process group, working directory and environment.
func (cfg StartConfig) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, cfg.Binary, args...)
	cmd.Dir = cfg.Bundle
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = pipeLimit
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Env = append(cmd.Env, "GOMAXPROCS=2", "TTRPC_ADDRESS="+cfg.TTRPCAddress)
	if !strings.HasPrefix(cfg.version(), "1.6") {
		cmd.Env = append(cmd.Env,
			"GRPC_ADDRESS="+cfg.Address, "NAMESPACE="+cfg.Namespace, "MAX_SHIM_VERSION=2")
	}
	return cmd
}

func (cfg StartConfig) version() string {
	switch {
	case cfg.Containerd != "":
		return cfg.Containerd
	case cfg.Legacy:
		return legacyContainerd
	}
	return currentContainerd
}

// flags returns the command line of start, the same in all versions (contract 1.3).
func (cfg StartConfig) flags(action string) []string {
	args := []string{
		"-namespace", cfg.Namespace, "-address", cfg.Address,
		"-publish-binary", "containerd", "-id", cfg.ID,
	}
	if cfg.Debug {
		args = append(args, "-debug")
	}
	return append(args, action)
}

// deleteFlags returns the command line of delete (contract 2.2).
func (cfg StartConfig) deleteFlags() []string {
	args := []string{
		"-namespace", cfg.Namespace, "-address", cfg.Address,
		"-publish-binary", "containerd", "-id", cfg.ID, "-bundle", cfg.Bundle,
	}
	if cfg.Debug && !strings.HasPrefix(cfg.version(), "1.6") {
		args = append(args, "-debug")
	}
	return append(args, "delete")
}

// parameters returns the standard input of start: the options, or nothing, for legacy managers,
// else BootstrapParams.
func (cfg StartConfig) parameters() ([]byte, error) {
	if cfg.Legacy {
		if cfg.Options == nil {
			return nil, nil
		}
		return proto.Marshal(cfg.Options)
	}
	params := &bootstrap.BootstrapParams{
		InstanceID:             cfg.ID,
		Namespace:              cfg.Namespace,
		ContainerdVersion:      cfg.version(),
		ContainerdTtrpcAddress: cfg.TTRPCAddress,
		ContainerdGrpcAddress:  cfg.Address,
		ContainerdBinary:       "containerd",
	}
	if cfg.Debug {
		params.LogLevel = bootstrap.LogLevel_LOG_LEVEL_DEBUG
	}
	if cfg.Options != nil {
		params.Extensions = []*bootstrap.Extension{{Value: cfg.Options}}
	}
	if cfg.SocketDir != "" {
		params.SocketDir = &cfg.SocketDir
	}
	return proto.Marshal(params)
}

// run runs cmd and explains the two ends that os/exec words for programmers.
func run(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrWaitDelay):
		return fmt.Errorf("a process left behind holds standard output or error; containerd would hang: %w", err)
	case ctx.Err() != nil:
		return fmt.Errorf("killed after %w: %w", ctx.Err(), err)
	}
	return err
}

// parseResult reads the answer of start: first as a message, whose bytes are not trimmed, then
// as a plain address (contract 1.4). Containerd tries JSON between the two; this project's
// answers are never JSON.
func parseResult(output []byte, legacy bool) (*bootstrap.BootstrapResult, error) {
	result := &bootstrap.BootstrapResult{}
	if legacy || proto.Unmarshal(output, result) != nil {
		result = &bootstrap.BootstrapResult{
			Version:  2,
			Protocol: "ttrpc",
			Address:  strings.TrimSpace(string(output)),
		}
	}
	switch {
	case result.Protocol != "ttrpc":
		return nil, fmt.Errorf("unexpected protocol %q in answer %q", result.Protocol, output)
	case result.Version != 2 && result.Version != 3:
		return nil, fmt.Errorf("unexpected version %d in answer %q", result.Version, output)
	case !strings.HasPrefix(result.Address, socketScheme+"/"):
		return nil, fmt.Errorf("no socket address in answer %q", output)
	}
	return result, nil
}

// text returns the output of a failed action as containerd shows it to its user.
func text(output []byte) string {
	if s := strings.TrimSpace(string(output)); s != "" {
		return s
	}
	return "no output"
}

package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/wire"
	"holdfast/runc"
)

// featuresType is how containerd names the Features of the runtime specification in an Any.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// featuresLimit bounds the question to the runtime; the answer is a constant of its binary.
const featuresLimit = 5 * time.Second

// printVersion answers -v and -version, for people.
func printVersion(_ context.Context, c *call) error {
	v := buildVersion()
	_, err := fmt.Fprintf(c.stdout, "%s:\n  Version:  %s\n  Revision: %s\n  Go version: %s\n",
		filepath.Base(c.binary), v.GetVersion(), v.GetRevision(), runtime.Version())
	if err != nil {
		return fmt.Errorf("print the version: %w", err)
	}
	return nil
}

// buildVersion returns what the Go tool has noted in the binary.
func buildVersion() *api.RuntimeVersion {
	v := &api.RuntimeVersion{Version: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}

// printInfo answers -info: a RuntimeInfo, with the features of the runtime that the options on
// stdin choose, or without them if it cannot tell (contract 1.9).
func printInfo(ctx context.Context, c *call) error {
	given, err := readInfoOptions(c)
	if err != nil {
		return err
	}
	info := &api.RuntimeInfo{Name: runtimeName(c.binary), Version: buildVersion(), Options: given}
	// Of options that we cannot read nobody knows which runtime they mean.
	if o, err := DecodeOptions(given); err == nil {
		if features, err := askFeatures(ctx, o.GetBinaryName()); err == nil {
			info.Features = &api.Any{TypeUrl: featuresType, Value: features}
		}
	}
	if _, err := c.stdout.Write(wire.Marshal(info)); err != nil {
		return fmt.Errorf("answer on stdout: %w", err)
	}
	return nil
}

// readInfoOptions returns the Any on stdin, or nil if there is none.
func readInfoOptions(c *call) (*api.Any, error) {
	data, err := readAll(c.stdin, maxParams)
	if err != nil {
		return nil, fmt.Errorf("read options from stdin: %w", err)
	}
	if len(data) == 0 {
		return nil, nil
	}
	given := &api.Any{}
	if err := wire.Unmarshal(data, given); err != nil {
		return nil, fmt.Errorf("read options from stdin: %w", err)
	}
	return given, nil
}

// runtimeName returns the name under which managers find a binary (contract 1.1).
func runtimeName(binary string) string {
	name, found := strings.CutPrefix(filepath.Base(binary), "containerd-shim-")
	if !found {
		return "io.containerd.holdfast.v2"
	}
	return "io.containerd." + strings.ReplaceAll(name, "-", ".")
}

// printFeatures answers CRI-O's question for the features of the runtime, as JSON.
func printFeatures(ctx context.Context, c *call) error {
	features, err := askFeatures(ctx, "")
	if err != nil {
		return fmt.Errorf("ask the runtime for its features: %w", err)
	}
	if _, err := c.stdout.Write(append(features, '\n')); err != nil {
		return fmt.Errorf("answer on stdout: %w", err)
	}
	return nil
}

// askFeatures returns the features of a runtime as compact JSON.
func askFeatures(ctx context.Context, binary string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, featuresLimit)
	defer cancel()
	features, err := runc.Features(ctx, binary)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, features); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

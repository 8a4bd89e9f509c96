package runc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/internal/bundle"
)

// CheckpointConfig is how to write a container to disk.
type CheckpointConfig struct {
	Image               string   // directory for the checkpoint
	Work                string   // directory for CRIU's logs; empty: one that is removed afterwards
	Parent              string   // directory of the checkpoint to build on, relative to Image
	Exit                bool     // the container ends when it is written
	OpenTCP             bool     // allow established TCP connections
	ExternalUnixSockets bool     // allow unix sockets to the outside
	Terminal            bool     // allow a process with a terminal
	FileLocks           bool     // allow file locks
	EmptyNamespaces     []string // create these, but do not restore them
	CgroupsMode         string   // how CRIU treats cgroups: soft, full, strict, …
}

// Checkpoint writes the running or paused container to disk by CRIU. On failure the end of CRIU's
// log is in the error and the log itself is kept as criu-dump.log in the bundle.
func (r *Runtime) Checkpoint(ctx context.Context, cfg CheckpointConfig) error {
	work := cfg.Work
	if work == "" {
		work = filepath.Join(r.Bundle, "work", "criu-work")
		if err := os.MkdirAll(work, 0o700); err != nil {
			return r.failure("checkpoint", fmt.Errorf("make directory for CRIU: %w", err))
		}
		defer os.RemoveAll(work) //nolint:errcheck // goes with the bundle at the latest
	}
	args := append(cfg.flags(work), r.ID)
	return r.explain(r.execute(ctx, command{verb: "checkpoint", args: args}), work, "dump.log")
}

func (cfg *CheckpointConfig) flags(work string) []string {
	args := []string{"--image-path", cfg.Image, "--work-path", work}
	args = appendValue(args, "--parent-path", cfg.Parent)
	args = appendFlag(args, "--tcp-established", cfg.OpenTCP)
	args = appendFlag(args, "--ext-unix-sk", cfg.ExternalUnixSockets)
	args = appendFlag(args, "--shell-job", cfg.Terminal)
	args = appendFlag(args, "--file-locks", cfg.FileLocks)
	args = appendValue(args, "--manage-cgroups-mode", cfg.CgroupsMode)
	for _, ns := range cfg.EmptyNamespaces {
		args = append(args, "--empty-ns", ns)
	}
	return appendFlag(args, "--leave-running", !cfg.Exit)
}

const (
	criuLogLimit  = 16 << 20 // of CRIU's log, what is kept
	criuLineLimit = 3        // of its error lines, how many are told
)

// explain adds to the error of a command that ran CRIU what CRIU's log says, and keeps that log
// in the bundle, since its own directory may go. It says " path= FILE" at its end as the stock
// shim does, and only the first line of the runtime's words (contract 3.9).
func (r *Runtime) explain(err error, work, name string) error {
	var e *Error
	if !errors.As(err, &e) || e.Code <= 0 {
		return err
	}
	content, readErr := readCRIULog(filepath.Join(work, name))
	if readErr != nil || len(content) == 0 {
		return err // CRIU was not reached
	}
	e.Message, _, _ = strings.Cut(e.Message, "\n")
	if lines := criuErrors(content); len(lines) > 0 {
		e.Message += ": " + strings.Join(lines, "; ")
	}
	kept := filepath.Join(r.Bundle, "criu-"+name)
	if bundle.Make(kept, content, 0o600) == nil {
		e.Message += " path= " + kept
	}
	e.Message = clean(e.Message)
	return e
}

// readCRIULog reads the end of a log in a directory that a client may have named: it does not
// follow a link to another file, nor wait on a FIFO.
func readCRIULog(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return readTail(f, criuLogLimit)
}

// criuErrors returns the last error lines of a CRIU log: "(00.012345) Error (file.c:123): …".
func criuErrors(content []byte) []string {
	var lines []string
	for line := range bytes.Lines(content) {
		if _, text, ok := bytes.Cut(line, []byte("Error (")); ok {
			lines = append(lines, "Error ("+string(bytes.TrimSpace(text)))
		}
	}
	return lines[max(0, len(lines)-criuLineLimit):]
}

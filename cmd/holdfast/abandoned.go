package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/internal/node"
)

// abandonedRun is a run whose shim has died, and that nobody has cleaned up after.
type abandonedRun struct {
	dir    string
	config client.StartConfig
}

// abandonedRuns returns them, by their directories below the one for temporary files.
func abandonedRuns(ctx context.Context) ([]abandonedRun, error) {
	paths, err := filepath.Glob(filepath.Join(tempDir(), "holdfast-*", runFile))
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	shims, err := node.Find(ctx, node.Config{})
	if err != nil {
		return nil, err
	}
	served := map[string]bool{}
	for _, s := range shims {
		served[filepath.Dir(s.Manager)] = true
	}
	var found []abandonedRun
	for _, path := range paths {
		dir := filepath.Dir(path)
		config, err := readRun(dir)
		if err != nil {
			return nil, err
		}
		if config != nil && !served[dir] && !answers(dir, config.Bundle) {
			found = append(found, abandonedRun{dir, *config})
		}
	}
	return found, nil
}

// answers tells whether somebody may listen at the address of a run's shim. A shim that has another name than
// shims have is not found among the processes.
func answers(dir, bundle string) bool {
	sockets, err := filepath.Glob(filepath.Join(dir, "s", "*"))
	if err != nil {
		return true
	}
	noted, err := os.ReadFile(filepath.Join(bundle, "address"))
	if err == nil && addressNeeded(strings.TrimSpace(string(noted))) != "" {
		return true
	}
	return slices.ContainsFunc(sockets, func(path string) bool { return listens(path) != "" })
}

// readRun returns what is in the runFile of a directory, or nil if that is not a run's of ours. It names
// a program to be executed, so that a directory of somebody else's, or one that others may write to, is
// none.
func readRun(dir string) (*client.StartConfig, error) {
	for _, path := range []string{dir, filepath.Join(dir, runFile)} {
		var st unix.Stat_t
		switch err := unix.Lstat(path, &st); {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EACCES):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("look at %s: %w", path, err)
		case int(st.Uid) != os.Geteuid(), st.Mode&0o022 != 0, st.Mode&unix.S_IFMT == unix.S_IFLNK:
			return nil, nil
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, runFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // it has just been removed
	}
	var config client.StartConfig
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use %s of %s: because %w; remove it if nobody needs it", runFile, dir, err)
	}
	return &config, nil
}

// runWithoutShim is such a run among what was left behind.
const runWithoutShim node.Kind = "run without shim"

func (a abandonedRun) leak() node.Leak {
	l := node.Leak{Kind: runWithoutShim, Namespace: a.config.Namespace, ID: a.config.ID, Path: a.dir}
	if info, err := os.Stat(a.dir); err == nil {
		l.Since = info.ModTime()
	}
	return l
}

// needed returns why gc may not remove the run, "" if it may.
func (a abandonedRun) needed(o gcOptions) string {
	changed, err := lastChange(a.dir)
	if err != nil {
		return err.Error()
	}
	if o.now().Sub(changed) < bundleAge {
		return "it has just been made"
	}
	reason := node.Living(o.cfg, node.Bundle{Namespace: a.config.Namespace, ID: a.config.ID, Dir: a.config.Bundle})
	if reason != "" {
		reason += "; holdfast delete " + a.config.ID + " ends and removes it"
	}
	return reason
}

// remove does what a manager does after its shim has died, and removes all of the run: the container is
// killed.
func (a abandonedRun) remove(ctx context.Context) (note string, err error) {
	response, warning, err := client.Delete(ctx, a.config)
	if err != nil {
		return "", fmt.Errorf("cannot clean up after the shim of %s: because %w; its files are in %s", a.config.ID, err, a.dir)
	}
	note = fmt.Sprintf("the container has ended with status %d", response.GetExitStatus())
	if warning = strings.TrimSpace(warning); warning != "" {
		note += "; " + warning
	}
	return note, removeAll(a.dir)
}

// setupDelete is the verb delete, which also removes what a shim that was killed has left of a run.
func setupDelete(f *flag.FlagSet) action {
	t := &target{}
	t.flags(f)
	execFlag(f, t)
	return func(ctx context.Context, args []string) (int, error) {
		t.id = args[0]
		err := t.dial(ctx)
		if err == nil {
			defer t.Close()
			return remove(ctx, t)
		}
		if t.address != "" || t.exec != "" || !errors.Is(err, errdefs.ErrNotFound) {
			return 0, err
		}
		runs, runErr := abandonedRuns(ctx)
		for _, run := range runs {
			if run.config.ID != t.id {
				continue
			}
			note, err := run.remove(ctx)
			if err == nil {
				fmt.Fprintf(os.Stderr, "holdfast: the shim of %s had died, and what was left is removed; %s\n", t.id, note)
			}
			return 0, err
		}
		return 0, errors.Join(err, runErr)
	}
}

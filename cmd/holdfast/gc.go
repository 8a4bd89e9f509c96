package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/node"
)

const (
	// What is younger than this may be in the making: a manager makes a bundle before it starts a
	// shim, and a socket is bound before it is listened on.
	bundleAge = time.Minute
	socketAge = 10 * time.Second
)

// gcOptions are those of holdfast gc.
type gcOptions struct {
	cfg       node.Config
	namespace string // "" = all; sockets belong to none
	yes       bool   // remove
	json      bool
	now       func() time.Time // nil = time.Now
}

// verdict is what gc makes of something that was left behind.
type verdict struct {
	Action string    `json:"action"` // remove, keep, removed or failed
	Kind   node.Kind `json:"kind"`
	Path   string    `json:"path"`
	Pid    int       `json:"pid,omitempty"`
	Reason string    `json:"reason"`

	leak node.Leak
}

// The actions of a verdict.
const (
	wouldRemove = "remove"
	keep        = "keep"
	removed     = "removed"
	failed      = "failed"
)

// gc removes what is provably dead, or says what it would remove.
func gc(ctx context.Context, out io.Writer, o gcOptions) error {
	if o.yes && os.Geteuid() != 0 {
		return errors.New("cannot remove anything: because only root sees all processes that may still need it; run holdfast as root")
	}
	if o.now == nil {
		o.now = time.Now
	}
	found, err := node.Read(ctx, o.cfg)
	if err != nil {
		return err
	}
	leaks := found.Leaks
	runs := map[string]abandonedRun{}
	if o.cfg.ProcRoot == "" { // of this machine
		all, err := abandonedRuns(ctx)
		if err != nil {
			return err
		}
		for _, r := range all {
			runs[r.dir] = r
			leaks = append(leaks, r.leak())
		}
	}
	if o.namespace != "" {
		leaks = inNamespace(leaks, o.namespace)
	}
	verdicts := []verdict{}
	// Bundles first: a shim's delete action also removes the socket.
	for _, kind := range []node.Kind{runWithoutShim, node.BundleWithoutShim, node.SocketWithoutProcess, node.ProcessWithoutBundle} {
		for _, l := range leaks {
			if l.Kind == kind {
				verdicts = append(verdicts, o.judge(ctx, l, runs[l.Path]))
			}
		}
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "holdfast: not run by root, and so not everything is seen")
	}
	if o.json {
		err = writeJSON(out, verdicts)
	} else {
		err = printVerdicts(out, verdicts, o.yes)
	}
	return errors.Join(err, failures(verdicts))
}

// judge decides about one leak, and removes it if that is wanted. run is set if it is one.
func (o gcOptions) judge(ctx context.Context, l node.Leak, run abandonedRun) verdict {
	v := verdict{Action: wouldRemove, Kind: l.Kind, Path: l.Path, Pid: l.Pid, leak: l}
	needed, dead, remove := "", "", func() (string, error) { return "", nil }
	switch l.Kind {
	case runWithoutShim:
		needed, dead = run.needed(o), "its shim and its container are gone"
		remove = func() (string, error) { return run.remove(ctx) }
	case node.SocketWithoutProcess:
		needed, dead = o.socketNeeded(l), "nobody listens on it"
		remove = func() (string, error) { return "", removeSocket(l.Path) }
	case node.BundleWithoutShim:
		needed, dead = o.bundleNeeded(l), "its shim and its container are gone"
		remove = func() (string, error) { return o.removeBundle(ctx, l) }
	default:
		needed = "it is alive; holdfast shutdown --address " + l.Address + " ends it if it has no containers"
	}
	if needed != "" {
		v.Action, v.Reason = keep, needed
		return v
	}
	if v.Reason = dead; !o.yes {
		return v
	}
	note, err := remove()
	switch {
	case err != nil:
		v.Action, v.Reason = failed, err.Error()
	case note != "":
		v.Action, v.Reason = removed, dead+"; "+note
	default:
		v.Action = removed
	}
	return v
}

// socketNeeded returns why a socket may not be removed, "" if it may.
func (o gcOptions) socketNeeded(l node.Leak) string {
	info, err := os.Lstat(l.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it is gone already"
	case err != nil:
		return err.Error()
	case o.now().Sub(info.ModTime()) < socketAge:
		return "it has just been made"
	}
	return listens(l.Path)
}

// listens returns why somebody may be behind a socket, "" if there is certainly nobody. A shim that is
// stuck takes connections still, or its queue is full.
func listens(path string) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Sprintf("it cannot be tried: %v", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return ""
	case err == nil, errors.Is(err, unix.EAGAIN):
		return "somebody listens on it"
	}
	return fmt.Sprintf("it cannot be tried: %v", err)
}

// bundleNeeded returns why a bundle may not be removed, "" if it may.
func (o gcOptions) bundleNeeded(l node.Leak) string {
	b := node.Bundle{Namespace: l.Namespace, ID: l.ID, Dir: l.Path, Address: l.Address}
	changed, err := lastChange(l.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it is gone already"
	case err != nil:
		return err.Error()
	case o.now().Sub(changed) < bundleAge:
		return "it has just been changed, perhaps by a manager that is about to start a shim"
	}
	if reason := addressNeeded(l.Address); reason != "" {
		return reason
	}
	if reason := node.Living(o.cfg, b); reason != "" {
		return reason
	}
	// The delete action of a pod's first container ends the others.
	for _, other := range node.Siblings(b) {
		if reason := node.Living(o.cfg, other); reason != "" {
			return fmt.Sprintf("container %s of the same shim may be alive: %s", other.ID, reason)
		}
	}
	if node.ShimBinary(l.Path) != "" {
		return "" // which unmounts what is mounted
	}
	switch mounts, err := node.Mounts(o.cfg, l.Path); {
	case err != nil:
		return err.Error()
	case len(mounts) > 0:
		return fmt.Sprintf("it names no shim that could clean up, and %s is mounted; umount that", mounts[0])
	}
	return ""
}

// addressNeeded returns why the shim of a bundle may be alive, going by its address.
func addressNeeded(address string) string {
	path, ok := strings.CutPrefix(address, "unix://")
	switch {
	case address == "":
		return ""
	case !ok || !filepath.IsAbs(path):
		return fmt.Sprintf("nobody can tell whether somebody is behind its address %s", address)
	}
	if reason := listens(path); reason != "" {
		return fmt.Sprintf("of its address %s: %s", address, reason)
	}
	return ""
}

// lastChange is when a directory, or a file in it, was changed last.
func lastChange(dir string) (time.Time, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return time.Time{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return time.Time{}, err
	}
	last := info.ModTime()
	for _, e := range entries {
		// What is mounted there has times of its own, and may not answer.
		if info, err := e.Info(); err == nil && !e.IsDir() && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last, nil
}

func printVerdicts(out io.Writer, verdicts []verdict, yes bool) error {
	if len(verdicts) == 0 {
		_, err := fmt.Fprintln(out, "nothing was left behind")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ACTION\tWHAT\tPATH\tWHY")
	count := 0
	for _, v := range verdicts {
		if v.Action == wouldRemove {
			count++
		}
		what := string(v.Kind)
		if v.Pid != 0 {
			what = fmt.Sprintf("%s, pid %d", what, v.Pid)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.Action, what, v.Path, v.Reason)
	}
	if err := table.Flush(); err != nil || yes || count == 0 {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d to remove; holdfast gc --yes does it\n", count)
	return err
}

func failures(verdicts []verdict) error {
	count := 0
	for _, v := range verdicts {
		if v.Action == failed {
			count++
		}
	}
	if count == 0 {
		return nil
	}
	return fmt.Errorf("cannot remove %d of %d: because of what is said above of each", count, len(verdicts))
}

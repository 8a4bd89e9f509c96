package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Kind says what of three things that belong together is missing.
type Kind string

// The kinds of leaks.
const (
	SocketWithoutProcess Kind = "socket without process"
	ProcessWithoutBundle Kind = "process without bundle"
	BundleWithoutShim    Kind = "bundle without shim"
)

// Leak is something that was left behind, as it seems.
type Leak struct {
	Kind      Kind
	Path      string // of the socket or the bundle; the working directory of the process
	Namespace string
	ID        string
	Pid       int       // of the process
	Address   string    // of the socket, or as noted in the bundle
	Since     time.Time // when the socket or bundle was changed last, or the process started
}

func findLeaks(cfg Config, t *table, bundles []Bundle) []Leak {
	return slices.Concat(leakedSockets(cfg, t), leakedProcesses(t), leakedBundles(t, bundles))
}

// leakedSockets are those in the directories of cfg, and of living shims, on which nobody listens.
// Only files that are called as shims call their sockets count.
func leakedSockets(cfg Config, t *table) (leaks []Leak) {
	used, dirs := map[string]bool{}, slices.Clone(cfg.SocketDirs)
	for _, name := range t.listening {
		used[name] = true
	}
	for i := range t.shims {
		for _, path := range t.listensOn(&t.shims[i]) {
			used[path] = true
		}
		path := strings.TrimPrefix(t.shims[i].Address, addressScheme)
		used[path] = true
		if isSocketName(filepath.Base(path)) {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // nobody has used it, or we may not look
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			info, err := e.Info()
			if err != nil || info.Mode().Type() != os.ModeSocket || !isSocketName(e.Name()) || used[path] {
				continue
			}
			leaks = append(leaks, Leak{Kind: SocketWithoutProcess, Path: path, Address: addressScheme + path, Since: info.ModTime()})
		}
	}
	return leaks
}

func leakedProcesses(t *table) (leaks []Leak) {
	for i := range t.shims {
		s := &t.shims[i]
		if len(s.Bundles) > 0 || s.home == "" {
			continue // of what is not known nobody can say that it is missing
		}
		if _, err := os.Lstat(s.home); errors.Is(err, fs.ErrNotExist) {
			leaks = append(leaks, Leak{
				Kind: ProcessWithoutBundle, Path: s.home, Namespace: s.Namespace, ID: s.ID,
				Pid: s.Pid, Address: s.Address, Since: s.Started,
			})
		}
	}
	return leaks
}

func leakedBundles(t *table, bundles []Bundle) (leaks []Leak) {
	for _, b := range bundles {
		owned := slices.ContainsFunc(t.shims, func(s Shim) bool {
			return slices.Contains(s.Bundles, b) || s.ID == b.ID && s.Namespace == b.Namespace
		})
		info, err := os.Lstat(b.Dir)
		if owned || err != nil {
			continue
		}
		leaks = append(leaks, Leak{
			Kind: BundleWithoutShim, Path: b.Dir, Namespace: b.Namespace, ID: b.ID, Address: b.Address, Since: info.ModTime(),
		})
	}
	return leaks
}

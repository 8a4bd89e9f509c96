package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Config says where to look. The zero value means this machine, as containerd uses it.
type Config struct {
	ProcRoot   string   // "" = /proc
	SocketDirs []string // nil = /run/containerd/s
	StateDirs  []string // of managers, with a directory for each namespace; nil = those of containerd, Docker and k3s
}

// The directories of managers as they are installed. Those of living shims are found all the same.
const (
	defaultSocketDir = "/run/containerd/s"
	stateName        = "io.containerd.runtime.v2.task"
)

func (cfg Config) withDefaults() Config {
	if cfg.ProcRoot == "" {
		cfg.ProcRoot = "/proc"
	}
	if cfg.SocketDirs == nil {
		cfg.SocketDirs = []string{defaultSocketDir}
	}
	if cfg.StateDirs == nil {
		for _, state := range []string{"/run/containerd", "/run/docker/containerd/daemon", "/run/k3s/containerd"} {
			cfg.StateDirs = append(cfg.StateDirs, filepath.Join(state, stateName))
		}
	}
	return cfg
}

// Shim is a process that serves containers, as it was when it was read. What could not be read, for
// want of privileges, is zero.
type Shim struct {
	Pid       int
	Namespace string
	ID        string // of the container for which it was started
	Group     string // of containers that share the shim; ID if there is only that one
	Address   string // of its socket, unix://PATH
	Manager   string // address of the manager that it was started with; empty for CRI-O
	Exe       string // path of its program, also if that has been replaced or removed since
	Version   string // as noted in the program, "" if it does not say
	Bundle    string // of ID, if it is still there, else the first of Bundles
	Bundles   []Bundle
	Started   time.Time
	Threads   int
	Files     int // open descriptors; -1 if they could not be counted
	Memory    Memory

	start  uint64   // of the process, in ticks since boot
	home   string   // where it works, or has its logs; "" if that is not known, or is no bundle
	inodes []uint64 // of its sockets, by descriptor
	socket string   // path and group that it was started with; "" if it is none of ours
	group  string
}

// Memory of a process, in bytes.
type Memory struct {
	Resident, Proportional, PrivateDirty int64
}

// Bundle is the directory of one container. It may hold a config.json or not, and need not be
// complete.
type Bundle struct {
	Namespace, ID, Dir string
	Address            string // of the shim, as noted in the bundle; "" if it is not
}

// Node is what Read has found.
type Node struct {
	Shims []Shim // by namespace, group and pid
	Leaks []Leak
}

// Read looks at the whole machine. The error is that of ctx, or says that there is no process table.
func Read(ctx context.Context, cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	table, err := readTable(ctx, cfg.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf("find shims: %w", err)
	}
	cfg.StateDirs = stateDirs(cfg.StateDirs, table.shims)
	bundles := findBundles(cfg.StateDirs)
	for i := range table.shims {
		s := &table.shims[i]
		table.locate(s, bundles)
		s.adopt(bundles)
	}
	n := &Node{Shims: table.shims}
	slices.SortFunc(n.Shims, func(a, b Shim) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Pid, b.Pid))
	})
	n.Leaks = findLeaks(cfg, table, bundles)
	return n, ctx.Err()
}

// Find returns all shims.
func Find(ctx context.Context, cfg Config) ([]Shim, error) {
	n, err := Read(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return n.Shims, nil
}

// Lookup returns the shim that has the container id, in any namespace if that is empty. The error is
// errdefs.ErrNotFound if there is none, and errdefs.ErrFailedPrecondition if there are several.
func Lookup(ctx context.Context, cfg Config, namespace, id string) (Shim, error) {
	if id == "" {
		return Shim{}, fmt.Errorf("cannot find a shim without the id of a container: %w", errdefs.ErrInvalidArgument)
	}
	shims, err := Find(ctx, cfg)
	if err != nil {
		return Shim{}, err
	}
	found := matching(shims, func(s Shim) bool { return s.has(namespace, id) })
	if len(found) == 0 { // a container of a pod whose bundle is elsewhere is named after the pod
		found = matching(shims, func(s Shim) bool {
			return (namespace == "" || s.Namespace == namespace) && s.Group == id
		})
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Shim{}, &lookupError{notFound(namespace, id), errdefs.ErrNotFound}
	}
	var where []string
	for _, s := range found {
		where = append(where, fmt.Sprintf("pid %d in namespace %s", s.Pid, s.Namespace))
	}
	return Shim{}, &lookupError{fmt.Sprintf("cannot choose a shim for %s: because several have it: %s; name the namespace or the address",
		id, strings.Join(where, ", ")), errdefs.ErrFailedPrecondition}
}

func notFound(namespace, id string) string {
	where := ""
	if namespace != "" {
		where = " in namespace " + namespace
	}
	return fmt.Sprintf("cannot find the shim of %s%s: because none that runs here has a bundle of that name; "+
		"holdfast ls shows all, and --address reaches one that is not found", id, where)
}

// lookupError has a text for people, and a kind.
type lookupError struct {
	text string
	kind error
}

func (e *lookupError) Error() string { return e.text }
func (e *lookupError) Unwrap() error { return e.kind }

func matching(shims []Shim, ok func(Shim) bool) (found []Shim) {
	for _, s := range shims {
		if ok(s) {
			found = append(found, s)
		}
	}
	return found
}

// has tells whether the container is the shim's, by its command line and its bundles.
func (s *Shim) has(namespace, id string) bool {
	if namespace != "" && s.Namespace != namespace {
		return false
	}
	// A shim that has deleted the container it was started for may serve others still.
	if s.ID == id && (len(s.Bundles) == 0 || s.Group == s.ID) {
		return true
	}
	return slices.ContainsFunc(s.Bundles, func(b Bundle) bool { return b.ID == id && b.Namespace == s.Namespace })
}

// Containers returns the ids of the containers whose bundles name the shim.
func (s *Shim) Containers() []string {
	var ids []string
	for _, b := range s.Bundles {
		ids = append(ids, b.ID)
	}
	return ids
}

// Alive tells whether the process is still the one that was read, in the process table of cfg.
func (s *Shim) Alive(cfg Config) bool {
	stat, err := readStat(cfg.withDefaults().ProcRoot, s.Pid)
	return !errors.Is(err, errGone) && (err != nil || stat.start == s.start)
}

// Package node finds the shims of a node: ours, containerd's and any other that is started as containerd
// starts shims (contract 1.2).
//
// A shim is a process, a socket and the bundles of its containers, and each of the three can be left when
// the others have gone. The package reads the process table, the directories of sockets and those of bundles,
// and says what belongs together. It asks no shim, changes nothing, and waits for nobody.
//
// What it reads changes under it: a process that ends meanwhile is left out.
package node

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Config says where to look. What is empty is taken from the node: its own process table, and the
// directories that containerd, dockerd's containerd and k3s use.
type Config struct {
	Proc    string   // where proc(5) is mounted
	Sockets []string // directories of sockets
	States  []string // directories with bundles, below the namespace and the container's id
}

// Shim is a running shim.
type Shim struct {
	Pid       int       `json:"pid"`
	Namespace string    `json:"namespace"`
	Group     string    `json:"group"`             // the container it was started for; of a pod, its sandbox
	Manager   string    `json:"manager,omitempty"` // the socket of whoever started it
	Address   string    `json:"address,omitempty"` // unix://PATH, where it listens; empty: nowhere
	Program   string    `json:"program"`           // its binary
	Started   time.Time `json:"started"`
	Private   int64     `json:"private_bytes"` // memory that it alone has, and has written to
	Threads   int       `json:"threads"`
	Files     int       `json:"descriptors"`
	Bundles   []Bundle  `json:"bundles"` // of its containers, as far as they lie where we look
}

// Bundle is a directory that a manager has made for a container.
type Bundle struct {
	Namespace string    `json:"namespace"`
	ID        string    `json:"id"`
	Path      string    `json:"path"`
	Address   string    `json:"address,omitempty"` // of its shim, as the bundle says
	Changed   time.Time `json:"changed"`
}

// Node is what was found. Each list is sorted.
type Node struct {
	Shims   []Shim   `json:"shims"`
	Sockets []Socket `json:"sockets_without_shim"`
	Bundles []Bundle `json:"bundles_without_shim"`
}

// Socket is the file of a socket that nobody listens on.
type Socket struct {
	Path    string    `json:"path"`
	Changed time.Time `json:"changed"`
}

// Find looks at the whole node.
func Find(ctx context.Context, cfg Config) (Node, error) {
	cfg = cfg.complete()
	known := spaces{}
	known.visit(filepath.Join(cfg.Proc, "self"))
	shims, err := processes(ctx, cfg.Proc, known)
	if err != nil {
		return Node{}, err
	}
	var n Node
	n.Bundles, err = bundles(cfg.States)
	if err != nil {
		return Node{}, err
	}
	n.Bundles = distribute(n.Bundles, shims)
	n.Shims = shims
	slices.SortFunc(n.Shims, func(a, b Shim) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Group, b.Group), cmp.Compare(a.Pid, b.Pid))
	})
	n.Sockets, err = deadSockets(cfg.Sockets, known)
	return n, err
}

// distribute gives each shim its bundles and returns those that are left.
func distribute(all []Bundle, shims []Shim) (left []Bundle) {
	for _, b := range all {
		i := slices.IndexFunc(shims, func(s Shim) bool { return s.has(b) })
		if i < 0 {
			left = append(left, b)
			continue
		}
		shims[i].Bundles = append(shims[i].Bundles, b)
	}
	return left
}

// has tells whether a bundle is of a container of s.
func (s *Shim) has(b Bundle) bool {
	if b.Address != "" && s.Address != "" {
		return b.Address == s.Address
	}
	return b.Namespace == s.Namespace && b.ID == s.Group
}

// Containers returns the ids of the containers that s has, as far as it is known without asking it.
func (s *Shim) Containers() []string {
	ids := make([]string, 0, 1+len(s.Bundles))
	for _, b := range s.Bundles {
		ids = append(ids, b.ID)
	}
	if len(ids) == 0 {
		return append(ids, s.Group) // its bundles lie elsewhere
	}
	return ids
}

// Lookup returns the shim of a container. An empty namespace stands for any, if only one has a
// container of that id.
func Lookup(ctx context.Context, cfg Config, namespace, id string) (Shim, error) {
	n, err := Find(ctx, cfg)
	if err != nil {
		return Shim{}, err
	}
	found := slices.DeleteFunc(n.Shims, func(s Shim) bool {
		return s.Address == "" || namespace != "" && s.Namespace != namespace || !slices.Contains(s.Containers(), id)
	})
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Shim{}, fmt.Errorf("cannot find the shim of %s: because no running shim has a container of that id; `holdfast ls` lists them: %w",
			id, errdefs.ErrNotFound)
	}
	var where []string
	for _, s := range found {
		where = append(where, fmt.Sprintf("%s (pid %d)", s.Namespace, s.Pid))
	}
	return Shim{}, fmt.Errorf("cannot choose a shim of %s: because there are several, in the namespaces %s; say which with --namespace or --address: %w",
		id, strings.Join(where, ", "), errdefs.ErrFailedPrecondition)
}

func (c Config) complete() Config {
	c.Proc = cmp.Or(c.Proc, "/proc")
	if c.Sockets == nil {
		c.Sockets = []string{"/run/containerd/s"}
	}
	if c.States == nil {
		const task = "/io.containerd.runtime.v2.task"
		c.States = []string{"/run/containerd" + task, "/run/docker/containerd/daemon" + task, "/run/k3s/containerd" + task}
	}
	return c
}

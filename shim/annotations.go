package shim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"holdfast/internal/bundle"
)

// Annotations in config.json that tell which containers share a daemon (contract 1.6.2).
const (
	groupAnnotation     = "io.containerd.runc.v2.group"
	sandboxAnnotation   = "io.kubernetes.cri.sandbox-id"
	containerAnnotation = "io.kubernetes.cri.container-type"
)

// maxSpec bounds what is read of a config.json. containerd passes specs in messages of at most
// 16 MiB.
const maxSpec = 64 << 20

// annotations are the few of a spec that the shim looks at, absent ones being "".
type annotations struct {
	group     string
	sandbox   string
	container string // "sandbox" or "container"
}

// key returns the grouping key of the container id.
func (a annotations) key(id string) string {
	switch {
	case a.group != "":
		return a.group
	case a.sandbox != "":
		return a.sandbox
	}
	return id
}

// readAnnotations reads config.json of a bundle as far as its annotations. A bundle without one
// has none: sandboxes of some managers come without a spec.
func readAnnotations(dir string) (annotations, error) {
	path := filepath.Join(dir, "config.json")
	f, err := bundle.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return annotations{}, nil
	}
	if err != nil {
		return annotations{}, fmt.Errorf("read the container's spec: %w", err)
	}
	found, err := scanAnnotations(f, maxSpec)
	if err := errors.Join(err, f.Close()); err != nil {
		return annotations{}, fmt.Errorf("read the container's spec %s: %w", path, err)
	}
	return found, nil
}

// scanAnnotations walks through a spec without keeping it: start runs for every container, and
// most of a spec is a seccomp profile that comes after the annotations. It reads at most
// limit bytes.
func scanAnnotations(r io.Reader, limit int64) (annotations, error) {
	var found annotations
	limited := &io.LimitedReader{R: r, N: limit}
	s := &jsonScanner{r: bufio.NewReader(limited)}
	err := s.object(func(key string) (bool, error) {
		if key != "annotations" {
			return true, s.skip()
		}
		return false, s.object(func(key string) (bool, error) {
			to := found.field(key)
			if to == nil {
				return true, s.skip()
			}
			text, err := s.text()
			*to = text
			return true, err
		})
	})
	if limited.N <= 0 {
		err = fmt.Errorf("%w: the limit is %d bytes", errTooLarge, limit)
	}
	return found, err
}

// field returns where the annotation key goes, or nil.
func (a *annotations) field(key string) *string {
	switch key {
	case groupAnnotation:
		return &a.group
	case sandboxAnnotation:
		return &a.sandbox
	case containerAnnotation:
		return &a.container
	}
	return nil
}

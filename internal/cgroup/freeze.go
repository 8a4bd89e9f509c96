package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// freezer is how a version freezes groups.
type freezer struct {
	file           string // what to write to
	freeze, thaw   string // what to write
	self, selfSays string // tells that this very group was frozen, not one above it
}

var (
	freezer1 = freezer{"freezer.state", "FROZEN", "THAWED", "freezer.self_freezing", "1"}
	freezer2 = freezer{"cgroup.freeze", "1", "0", "cgroup.freeze", "1"}
)

// freezer returns how to freeze groups in the hierarchy; it is false if that cannot be done.
func (p *place) freezer() (freezer, bool) {
	if p.unified {
		return freezer2, true
	}
	return freezer1, slices.Contains(p.controllers, "freezer")
}

// Thaw sets free what is frozen in the group and, since nobody else may be left to do it, in the
// groups below it. A group without a freezer is never frozen.
//
// The error is ErrGone if the group does not exist, ErrShared if it is not the container's alone.
func (g *Group) Thaw() error {
	p, err := g.home()
	if errors.Is(err, ErrShared) {
		return fmt.Errorf("cannot thaw the container: its processes are in a cgroup with others: %w", err)
	}
	if err != nil {
		return err
	}
	d, err := p.open()
	if err != nil {
		return err
	}
	defer d.close()
	return p.thaw(d, true)
}

// frozen tells whether this very group was told to freeze.
func (p *place) frozen(d *dir) bool {
	f, ok := p.freezer()
	return ok && string(d.content(f.self)) == f.selfSays
}

// freeze makes the group stand still, as far as that is possible within freezeLimit.
func (p *place) freeze(d *dir) {
	f, ok := p.freezer()
	if !ok {
		return
	}
	settle(freezeLimit, func() bool {
		// Written anew each time: in version 1 that makes the kernel try again with those that it
		// could not freeze before.
		if d.write(f.file, f.freeze) != nil {
			return true // not permitted, or gone: no use to wait
		}
		if p.unified {
			return d.pairs("cgroup.events").of("frozen") == 1
		}
		return string(d.content(f.file)) == f.freeze
	})
}

// thaw sets the group free and, if nested, the groups below it.
func (p *place) thaw(d *dir, nested bool) error {
	f, ok := p.freezer()
	if !ok {
		return nil
	}
	thaw := func(path string) error {
		if path != "." && string(d.content(filepath.Join(path, f.self))) != f.selfSays {
			return nil
		}
		return d.write(filepath.Join(path, f.file), f.thaw)
	}
	var err error
	if nested {
		err = d.walk(thaw)
	} else {
		err = thaw(".")
	}
	switch {
	case err == nil:
		return nil
	case vanished(err) && !d.alive():
		return ErrGone
	case errors.Is(err, unix.ENOENT):
		return nil // version 2 before Linux 5.2 has no freezer
	}
	return fmt.Errorf("thaw %s: %w", p.dir, err)
}

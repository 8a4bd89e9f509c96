package leak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
)

// Mounts makes a Watch look for mounts at and below dir that are not there now.
func Mounts(dir string) Option {
	return func(w *Watch) {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved // mountinfo has no symbolic links
		}
		before := map[string]bool{}
		for _, m := range mounts(dir) {
			before[m] = true
		}
		w.add("mounts below "+dir, func() []string {
			return slices.DeleteFunc(mounts(dir), func(m string) bool { return before[m] })
		})
	}
}

func mounts(dir string) []string {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return []string{"cannot be read: " + err.Error()}
	}
	var found []string
	for _, m := range infos {
		found = append(found, fmt.Sprintf("%s, type %s, mount id %d", m.Mountpoint, m.FSType, m.ID))
	}
	return found
}

// Sockets makes a Watch look for entries of the directory dir that are not there now. The
// directory may be missing.
func Sockets(dir string) Option {
	return func(w *Watch) {
		before := tree(dir)
		w.add("sockets in "+dir, func() []string { return news(dir, before, nil) })
	}
}

// Bundle makes a Watch look for files in a bundle that are not there now, but for those named,
// relative to the bundle: what the shim leaves to the manager on purpose. The bundle may be
// removed before the Watch looks, and has then nothing left in it; so the test that wants to know
// removes it in a clean-up registered before Check.
func Bundle(dir string, allowed ...string) Option {
	return func(w *Watch) {
		before := tree(dir)
		w.add("files in bundle "+dir, func() []string { return news(dir, before, allowed) })
	}
}

// tree returns the paths below dir, relative to it.
func tree(dir string) map[string]fs.FileMode {
	found := map[string]fs.FileMode{}
	// The function returns no error: what cannot be read is noted as an entry.
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == dir && err == nil {
			return nil
		}
		name, relErr := filepath.Rel(dir, path)
		if relErr != nil {
			name = path
		}
		if err != nil {
			found[name+" cannot be read: "+err.Error()] = 0
			return nil
		}
		found[name] = entry.Type()
		return nil
	})
	return found
}

func news(dir string, before map[string]fs.FileMode, allowed []string) []string {
	var found []string
	for name, mode := range tree(dir) {
		if _, old := before[name]; !old && !slices.Contains(allowed, name) {
			found = append(found, fmt.Sprintf("%v %s", mode, filepath.Join(dir, name)))
		}
	}
	slices.Sort(found)
	return found
}

// Cgroups makes a Watch look for cgroups below path, the same in all hierarchies, that are not
// there now. path itself is not one of them: runtimes leave the parents of what they make.
func Cgroups(path string) Option {
	return func(w *Watch) {
		before := cgroups(path)
		w.add("cgroups below "+path, func() []string {
			return slices.DeleteFunc(cgroups(path), func(c string) bool { return slices.Contains(before, c) })
		})
	}
}

const cgroupRoot = "/sys/fs/cgroup"

// cgroups returns the directories below path in the only hierarchy (version 2), or in each
// (version 1).
func cgroups(path string) []string {
	roots := []string{filepath.Join(cgroupRoot, path)}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return []string{"cannot be read: " + err.Error()}
	}
	for _, e := range entries {
		roots = append(roots, filepath.Join(cgroupRoot, e.Name(), path))
	}
	var found []string
	for _, root := range roots {
		for name, mode := range tree(root) {
			if mode.IsDir() {
				found = append(found, filepath.Join(root, name))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

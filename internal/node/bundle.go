package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	addressScheme = "unix://"
	specFile      = "config.json"
	maxSmall      = 64 << 10 // bytes of a file that holds an address
	maxSpec       = 64 << 20
)

// stateDirs adds to those known the ones that living shims work in: a bundle is DIR/NAMESPACE/ID.
func stateDirs(known []string, shims []Shim) []string {
	dirs := slices.Clone(known)
	for _, s := range shims {
		dir := strings.TrimSuffix(s.home, removedSuffix)
		state := filepath.Dir(filepath.Dir(dir))
		if filepath.Base(state) == stateName && filepath.Base(filepath.Dir(dir)) == s.Namespace && !slices.Contains(dirs, state) {
			dirs = append(dirs, state)
		}
	}
	return dirs
}

// findBundles returns those below the state directories, by directory.
func findBundles(states []string) []Bundle {
	var found []Bundle
	for _, state := range states {
		for _, ns := range directories(state) {
			for _, id := range directories(filepath.Join(state, ns)) {
				dir := filepath.Join(state, ns, id)
				found = append(found, Bundle{Namespace: ns, ID: id, Dir: dir, Address: readAddress(dir)})
			}
		}
	}
	slices.SortFunc(found, func(a, b Bundle) int { return cmp.Compare(a.Dir, b.Dir) })
	return slices.CompactFunc(found, func(a, b Bundle) bool { return a.Dir == b.Dir })
}

// directories returns the names of the directories in dir. Hidden ones are being removed (contract
// 1.8).
func directories(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// readAddress returns the address that a manager or a shim has noted in a bundle.
func readAddress(dir string) string {
	if noted := notedAddresses(dir); len(noted) > 0 {
		return noted[0]
	}
	return ""
}

// notedAddresses returns what the manager has noted, if it has, and what the shim has.
func notedAddresses(dir string) (found []string) {
	var noted struct {
		Address string `json:"address"`
	}
	if data, err := readFile(filepath.Join(dir, "bootstrap.json"), maxSmall); err == nil {
		if json.Unmarshal(data, &noted) == nil && noted.Address != "" {
			found = append(found, noted.Address)
		}
	}
	if data, err := readFile(filepath.Join(dir, "address"), maxSmall); err == nil {
		if address := strings.TrimSpace(string(data)); address != "" {
			found = append(found, address)
		}
	}
	return found
}

// readFile reads a regular file of at most limit bytes, and waits for nobody: what is in a bundle may
// be a FIFO.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return nil, os.ErrInvalid
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// spec is what we need of a config.json.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		CgroupsPath string `json:"cgroupsPath"`
	} `json:"linux"`
}

func readSpec(dir string) (found spec, ok bool) {
	data, err := readFile(filepath.Join(dir, specFile), maxSpec)
	if err != nil || json.Unmarshal(data, &found) != nil {
		return spec{}, false
	}
	return found, true
}

// group returns the key under which containers share a shim (contract 1.6.2), "" for none.
func (s spec) group() string {
	return cmp.Or(s.Annotations["io.containerd.runc.v2.group"], s.Annotations["io.kubernetes.cri.sandbox-id"])
}

// socketName returns how the socket of a group is called (contract 1.6.3).
func socketName(manager, namespace, group string) string {
	sum := sha256.Sum256([]byte(filepath.Join(manager, namespace, group)))
	return hex.EncodeToString(sum[:])
}

// locate finds out on which of its sockets a shim serves containers, and for which group.
func (t *table) locate(s *Shim, bundles []Bundle) {
	if s.socket != "" {
		s.Address, s.Group = addressScheme+s.socket, cmp.Or(s.group, s.ID)
		return
	}
	paths := t.listensOn(s)
	groups := []string{s.ID}
	if found, ok := readSpec(s.home); ok && found.group() != "" {
		groups = []string{found.group(), s.ID}
	}
	for _, group := range groups {
		name := socketName(s.Manager, s.Namespace, group)
		for _, path := range paths {
			if filepath.Base(path) == name {
				s.Address, s.Group = addressScheme+path, group
				return
			}
		}
	}
	s.Group = groups[0]
	// The name may be made in another way. Then a bundle tells which socket it is; upstream's shims
	// have one more for debugging.
	for _, b := range bundles {
		if b.Dir == s.home && b.Address != "" {
			s.Address = b.Address
		}
		if path := strings.TrimPrefix(b.Address, addressScheme); b.Address != "" && slices.Contains(paths, path) {
			s.Address = b.Address
			return
		}
	}
	switch noted := readAddress(s.home); {
	case s.Address != "":
	case noted != "":
		s.Address = noted
	case len(paths) > 0:
		s.Address = addressScheme + paths[0]
	}
}

// listensOn returns the paths of the sockets that a shim listens on, by descriptor. If its
// descriptors may not be read that is the one whose name follows from its command line.
func (t *table) listensOn(s *Shim) (paths []string) {
	if s.Files < 0 {
		own := socketName(s.Manager, s.Namespace, s.ID)
		for _, name := range t.listening {
			if filepath.IsAbs(name) && filepath.Base(name) == own {
				paths = append(paths, name)
			}
		}
		return paths
	}
	for _, inode := range s.inodes {
		name, ok := t.listening[inode]
		switch {
		case !ok || strings.HasPrefix(name, "@"):
		case filepath.IsAbs(name):
			paths = append(paths, name)
		default: // bound where the process was
			full := filepath.Join(strings.TrimSuffix(s.home, removedSuffix), name)
			if real, err := filepath.EvalSymlinks(full); err == nil {
				full = real
			}
			paths = append(paths, full)
		}
	}
	return paths
}

// isSocketName tells whether a file is called as shims call their sockets: a hash in hexadecimal.
func isSocketName(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == 2*sha256.Size
}

// adopt notes the bundles of a shim: those that name its address, and the one that it works in.
func (s *Shim) adopt(bundles []Bundle) {
	for _, b := range bundles {
		if b.Address != "" && b.Address == s.Address || b.Dir == s.home {
			s.Bundles = append(s.Bundles, b)
		}
	}
	works := slices.ContainsFunc(s.Bundles, func(b Bundle) bool { return b.Dir == s.home })
	if _, err := os.Lstat(filepath.Join(s.home, specFile)); !works && err == nil && s.home != "" { // of no manager
		own := Bundle{Namespace: s.Namespace, ID: s.ID, Dir: s.home, Address: readAddress(s.home)}
		s.Bundles, works = append([]Bundle{own}, s.Bundles...), true
	}
	switch {
	case works:
		s.Bundle = s.home
	case len(s.Bundles) > 0:
		s.Bundle = s.Bundles[0].Dir
	}
}

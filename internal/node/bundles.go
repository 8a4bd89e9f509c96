package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// bundles returns those in the state directories. One that is not there has none.
func bundles(states []string) ([]Bundle, error) {
	var all []Bundle
	for _, state := range states {
		spaces, err := os.ReadDir(state)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list bundles: %w", err)
		}
		for _, space := range spaces {
			entries, err := os.ReadDir(filepath.Join(state, space.Name()))
			if err != nil {
				continue // no directory, or gone
			}
			for _, e := range entries {
				info, err := e.Info()
				if err != nil || !e.IsDir() {
					continue
				}
				path := filepath.Join(state, space.Name(), e.Name())
				all = append(all, Bundle{space.Name(), e.Name(), path, addressIn(path), info.ModTime()})
			}
		}
	}
	return all, nil
}

// addressIn returns the address that a bundle names, or "": in bootstrap.json since containerd 1.7 or
// else in the file address (contract 1.6).
func addressIn(bundle string) string {
	var bootstrap struct{ Address string }
	if json.Unmarshal(read(filepath.Join(bundle, "bootstrap.json")), &bootstrap) == nil && bootstrap.Address != "" {
		return bootstrap.Address
	}
	return strings.TrimSpace(string(read(filepath.Join(bundle, "address"))))
}

// read returns the beginning of a small regular file; nil if there is none. It waits for nobody: what
// lies there may be a FIFO.
func read(path string) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	content, _ := io.ReadAll(io.LimitReader(f, 4096)) // what cannot be read names no address
	return content
}

package runc

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"holdfast/internal/bundle"
)

const (
	specLimit = 64 << 20 // bytes of config.json; 128 KiB is already a large one
	maxPid    = 1 << 22  // PID_MAX_LIMIT of the kernel
)

// Spec is what the shim wants to know of a container's config.json.
type Spec struct {
	Terminal     bool              // process.terminal
	SELinuxLabel string            // process.selinuxLabel
	Root         string            // root.path: absolute, or relative to the bundle
	Annotations  map[string]string // annotations
	CgroupsPath  string            // linux.cgroupsPath
	MemoryLimit  int64             // linux.resources.memory.limit in bytes; 0 or negative: none
	// PrivatePID tells that the container has a pid namespace of its own, so that its processes
	// die with its init. An entry with a path joins somebody else's namespace (contract 8.4).
	PrivatePID bool
	// RootUID and RootGID are who the container's root is on the host, by linux.uidMappings and
	// gidMappings: 0 without a user namespace.
	RootUID, RootGID int
}

// ReadSpec reads config.json in the bundle dir. If it fails, the Spec is the zero value, which is the
// safe one: shared pid namespace, no limit. The error matches no kind.
func ReadSpec(dir string) (Spec, error) {
	path := filepath.Join(dir, "config.json")
	f, err := bundle.Open(path)
	if err != nil {
		return Spec{}, fmt.Errorf("read %s: %v", path, err) //nolint:errorlint // no ENOENT for ttrpc to take for "no such task"
	}
	defer f.Close() //nolint:errcheck // only read
	spec, err := parseSpec(f)
	if err != nil {
		return Spec{}, fmt.Errorf("read %s: %v", path, err) //nolint:errorlint // see above
	}
	return spec, nil
}

type idMapping struct{ ContainerID, HostID, Size uint32 }

// rootOf returns what id 0 of the container is on the host.
func rootOf(mappings []idMapping) int {
	for _, m := range mappings {
		if m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// parseSpec decodes only the fields that are asked for; the rest is skipped without being built.
func parseSpec(r io.Reader) (Spec, error) {
	var c struct {
		Process struct {
			Terminal     bool
			SelinuxLabel string
		}
		Root        struct{ Path string }
		Annotations map[string]string
		Linux       struct {
			Namespaces  []struct{ Type, Path string }
			CgroupsPath string
			UIDMappings []idMapping
			GIDMappings []idMapping
			Resources   struct {
				Memory struct{ Limit int64 }
			}
		}
	}
	limited := &io.LimitedReader{R: r, N: specLimit + 1}
	err := json.NewDecoder(limited).Decode(&c)
	if limited.N <= 0 {
		return Spec{}, fmt.Errorf("it is larger than %d bytes", specLimit)
	}
	if err != nil {
		return Spec{}, err
	}
	spec := Spec{
		Terminal:     c.Process.Terminal,
		SELinuxLabel: c.Process.SelinuxLabel,
		Root:         c.Root.Path,
		Annotations:  c.Annotations,
		CgroupsPath:  c.Linux.CgroupsPath,
		MemoryLimit:  c.Linux.Resources.Memory.Limit,
		RootUID:      rootOf(c.Linux.UIDMappings),
		RootGID:      rootOf(c.Linux.GIDMappings),
	}
	for _, ns := range c.Linux.Namespaces {
		if ns.Type == "pid" {
			spec.PrivatePID = ns.Path == ""
		}
	}
	return spec, nil
}

// readPid reads a pid file.
func readPid(path string) (int, error) {
	content, err := bundle.ReadFile(path, 32)
	if err != nil {
		return 0, err
	}
	pid, err := parsePid(content)
	if err != nil {
		return 0, fmt.Errorf("pid file %s: %w", path, err)
	}
	return pid, nil
}

// parsePid is strict: what is half written, or was meant for somebody else, must not become the
// pid of a stranger. A final newline is let pass.
func parsePid(content []byte) (int, error) {
	text := string(content)
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	pid, err := strconv.ParseUint(text, 10, 32)
	if err != nil || pid == 0 || pid > maxPid || text[0] == '0' {
		return 0, fmt.Errorf("%q is not a pid", text)
	}
	return int(pid), nil
}

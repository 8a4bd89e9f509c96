package client

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// cgroupNameLimit leaves room in a file name, of 255 bytes, for what a runtime adds.
const cgroupNameLimit = 200

// DefaultOCIVersion is the version a bundle claims unless BundleConfig says otherwise. crun up to
// 1.8 refuses anything newer than 1.0.
const DefaultOCIVersion = "1.0.2"

// ProcessType is the type URL of the process in an Exec call, whose value is JSON.
const ProcessType = "types.containerd.io/opencontainers/runtime-spec/1/Process"

// BundleConfig describes a container whose programs are those of the host. The zero value, with
// Args, is a container with its own namespaces and a writable root directory, run by root.
type BundleConfig struct {
	Args           []string
	Env            []string // in addition to PATH, and TERM for a terminal
	Cwd            string   // "" = /
	Terminal       bool
	UID            uint32 // the group is the same number
	Hostname       string // "" = the name of the bundle directory
	CgroupsPath    string // "" = named after the whole path of the bundle, so that ids may be the same
	HostPID        bool   // no pid namespace of its own
	MemoryLimit    int64  // bytes; 0 = none
	ReadonlyRootfs bool
	// Rootfs is a directory to be used as the root instead of one with the host's programs. Nothing
	// but what a runtime itself makes for mounts is written to it.
	Rootfs      string
	Annotations map[string]string
	Mounts      []specs.Mount // after those of NewBundle
	OCIVersion  string

	// Edit, if not nil, has the last word on the specification.
	Edit func(*specs.Spec)
}

// NewBundle makes a bundle in dir: config.json and, unless cfg names one, a rootfs with the directories
// that a container needs, on which the host's /usr is mounted read-only. So sh and coreutils are there
// without any image. dir is made if need be; a bundle in it is overwritten. It is dir's owner who
// removes it.
func NewBundle(dir string, cfg BundleConfig) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if cfg.Hostname == "" {
		cfg.Hostname = filepath.Base(dir)
	}
	if cfg.CgroupsPath == "" {
		cfg.CgroupsPath = cgroupName(dir)
	}
	var mounts []specs.Mount
	if cfg.Rootfs == "" {
		if mounts, err = makeRootfs(filepath.Join(dir, "rootfs"), cfg.Hostname); err != nil {
			return fmt.Errorf("make rootfs of %s: %w", dir, err)
		}
		mounts = append(mounts, emptyTmp)
	} else if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	spec := newSpec(cfg, mounts)
	if cfg.Edit != nil {
		cfg.Edit(spec)
	}
	return WriteSpec(dir, spec)
}

// cgroupName returns a cgroup path that no other bundle of this host has, one level deep so that
// the runtime which makes it also removes all of it.
func cgroupName(dir string) string {
	name := strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-")
	if len(name) > cgroupNameLimit {
		name = name[len(name)-cgroupNameLimit:]
	}
	return "/" + name
}

// WriteSpec writes spec as the config.json of a bundle.
func WriteSpec(bundle string, spec *specs.Spec) error {
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o644); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// ReadSpec reads the config.json of a bundle.
func ReadSpec(bundle string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("decode config.json of %s: %w", bundle, err)
	}
	return spec, nil
}

// ExecSpec returns the specification of an exec process as the Exec call wants it. Of cfg it uses
// Args, Env, Cwd, Terminal and UID.
func ExecSpec(cfg BundleConfig) (*anypb.Any, error) {
	data, err := json.Marshal(newProcess(cfg))
	if err != nil {
		return nil, fmt.Errorf("encode process: %w", err)
	}
	return &anypb.Any{TypeUrl: ProcessType, Value: data}, nil
}

func newSpec(cfg BundleConfig, hostMounts []specs.Mount) *specs.Spec {
	if cfg.OCIVersion == "" {
		cfg.OCIVersion = DefaultOCIVersion
	}
	namespaces := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.IPCNamespace},
		{Type: specs.NetworkNamespace},
	}
	if !cfg.HostPID {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	resources := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
	}
	if cfg.MemoryLimit != 0 {
		resources.Memory = &specs.LinuxMemory{Limit: &cfg.MemoryLimit}
	}
	mounts := append(systemMounts(), hostMounts...)
	return &specs.Spec{
		Version:     cfg.OCIVersion,
		Process:     newProcess(cfg),
		Root:        &specs.Root{Path: cmp.Or(cfg.Rootfs, "rootfs"), Readonly: cfg.ReadonlyRootfs},
		Hostname:    cfg.Hostname,
		Mounts:      append(mounts, cfg.Mounts...),
		Annotations: cfg.Annotations,
		Linux: &specs.Linux{
			CgroupsPath: cfg.CgroupsPath,
			Namespaces:  namespaces,
			Resources:   resources,
		},
	}
}

func newProcess(cfg BundleConfig) *specs.Process {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if cfg.Terminal {
		env = append(env, "TERM=xterm")
	}
	if cfg.Cwd == "" {
		cfg.Cwd = "/"
	}
	process := &specs.Process{
		Terminal: cfg.Terminal,
		User:     specs.User{UID: cfg.UID, GID: cfg.UID},
		Args:     cfg.Args,
		Env:      append(env, cfg.Env...),
		Cwd:      cfg.Cwd,
	}
	if cfg.UID == 0 {
		process.Capabilities = &specs.LinuxCapabilities{
			Bounding:  rootCapabilities,
			Effective: rootCapabilities,
			Permitted: rootCapabilities,
		}
	}
	return process
}

// rootCapabilities is what containerd gives the root of a container by default. Read only.
var rootCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
	"holdfast/internal/bundle"
	"holdfast/internal/wire"
	"holdfast/runc"
)

// The types that options may have (contract 1.1, 5).
const (
	runcOptions  = "containerd.runc.v1.Options"
	tableOptions = "runtimeoptions.v1.Options"
)

// Files of a bundle that keep a container's options for delete (contract 1.8). Their names and
// formats are those of containerd's runc shim, whose delete may have to read ours and ours theirs.
const (
	optionsFile = "options.json"
	runtimeFile = "runtime"
)

// maxFile bounds the small files that are read whole: options, records, pids, addresses.
const maxFile = 1 << 20

// typeName returns the name of the type in value. Managers write it bare, anypb with a prefix.
func typeName(value *api.Any) string {
	url := value.GetTypeUrl()
	return url[strings.LastIndexByte(url, '/')+1:]
}

// isOptions tells whether value is of a type that DecodeOptions knows.
func isOptions(value *api.Any) bool {
	return typeName(value) == runcOptions || typeName(value) == tableOptions
}

// DecodeOptions returns the runtime options in value, which may be of either known type. No value,
// and one without content, stand for the defaults. The result is never nil without an error.
//
// The error is errdefs.ErrInvalidArgument if the type is not known or the content is wrong.
func DecodeOptions(value *api.Any) (*api.Options, error) {
	decoded := &api.Options{}
	if value.GetTypeUrl() == "" && len(value.GetValue()) == 0 {
		return decoded, nil
	}
	switch typeName(value) {
	case runcOptions:
		if err := wire.Unmarshal(value.GetValue(), decoded); err != nil {
			return nil, fmt.Errorf("read options of type %s: %w: %w", runcOptions, err, errdefs.ErrInvalidArgument)
		}
		return decoded, nil
	case tableOptions:
		return decodeTable(value.GetValue())
	}
	return nil, fmt.Errorf("cannot use options of type %q: known are %s and %s: %w",
		value.GetTypeUrl(), runcOptions, tableOptions, errdefs.ErrInvalidArgument)
}

// decodeTable reads options that are a TOML table, in the message or in a file that it names. CRI
// sends them so for runtimes that are not named io.containerd.runc.v2 (contract 1.1).
func decodeTable(data []byte) (*api.Options, error) {
	var msg api.RuntimeOptions
	if err := wire.Unmarshal(data, &msg); err != nil {
		return nil, fmt.Errorf("read options of type %s: %w: %w", tableOptions, err, errdefs.ErrInvalidArgument)
	}
	text, source := msg.GetConfigBody(), "in the runtime's options"
	if path := msg.GetConfigPath(); len(text) == 0 && path != "" {
		file, err := readFile(path, maxFile)
		if err != nil {
			// ENOENT must not pass for a task that does not exist (contract 16).
			return nil, fmt.Errorf("cannot read runtime options: %v; name a file that exists in the runtime's ConfigPath: %w",
				err, errdefs.ErrInvalidArgument)
		}
		text, source = file, path
	}
	decoded, err := parseTable(string(text))
	if err != nil {
		return nil, fmt.Errorf("read runtime options %s: %w: %w", source, err, errdefs.ErrInvalidArgument)
	}
	return decoded, nil
}

// parseTable reads a TOML table of options. Keys that it does not know are ignored.
func parseTable(text string) (*api.Options, error) {
	decoded := &api.Options{}
	seen := map[string]bool{}
	err := scanTOML(text, func(key string, value any) error {
		known, fits := setOption(decoded, foldKey(key), value)
		switch {
		case !known:
			return nil
		case !fits:
			return fmt.Errorf("%s has a value of the wrong kind", key)
		case seen[foldKey(key)]:
			return fmt.Errorf("%s is set twice; keep the table of one runtime only", key)
		}
		seen[foldKey(key)] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return decoded, nil
}

// foldKey makes BinaryName and binary_name one: the TOML decoders of containerd ignore case, and
// the fields' own names have underscores.
func foldKey(key string) string { return strings.ToLower(strings.ReplaceAll(key, "_", "")) }

// setOption stores value under the folded key. known is false for a key that is no option, fits if
// the value is of the wrong kind.
func setOption(o *api.Options, key string, value any) (known, fits bool) {
	switch key {
	case "binaryname":
		return true, assign(&o.BinaryName, value)
	case "root":
		return true, assign(&o.Root, value)
	case "systemdcgroup":
		return true, assign(&o.SystemdCgroup, value)
	case "nopivotroot":
		return true, assign(&o.NoPivotRoot, value)
	case "nonewkeyring":
		return true, assign(&o.NoNewKeyring, value)
	case "shimcgroup":
		return true, assign(&o.ShimCgroup, value)
	case "criuimagepath":
		return true, assign(&o.CriuImagePath, value)
	case "criuworkpath":
		return true, assign(&o.CriuWorkPath, value)
	case "iouid":
		return true, assignID(&o.IoUid, value)
	case "iogid":
		return true, assignID(&o.IoGid, value)
	}
	// CriuPath is among the unknown: runtimes ignore --criu since runc 1.2 (contract 5).
	return false, false
}

func assign[T string | bool](to *T, value any) bool {
	v, ok := value.(T)
	if ok {
		*to = v
	}
	return ok
}

func assignID(to *uint32, value any) bool {
	n, ok := value.(int64)
	if !ok || n < 0 || n > math.MaxUint32 {
		return false
	}
	*to = uint32(n)
	return true
}

// SaveOptions writes what delete will need of o into the bundle. Call it before the first side
// effect of Create. A crash leaves each of the two files old or new, never half.
func SaveOptions(dir string, o *api.Options) error {
	if o == nil {
		o = &api.Options{}
	}
	data, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("save options: %w", err)
	}
	if err := bundle.Replace(filepath.Join(dir, optionsFile), data, 0o600); err != nil {
		return fmt.Errorf("save options: %w", err)
	}
	if err := bundle.Replace(filepath.Join(dir, runtimeFile), []byte(o.GetBinaryName()), 0o600); err != nil {
		return fmt.Errorf("save options: %w", err)
	}
	return nil
}

// LoadOptions returns the options that were saved in the bundle, by us or by containerd's shim. It
// never returns nil: what is missing is left at its default. The error is a note about a file that
// is there and could not be used; the options beside it are good.
func LoadOptions(bundle string) (*api.Options, error) {
	o := &api.Options{}
	var notes []error
	data, err := readInBundle(filepath.Join(bundle, optionsFile), maxFile)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, o); err != nil {
			o = &api.Options{}
			notes = append(notes, fmt.Errorf("ignored %s: %w", filepath.Join(bundle, optionsFile), err))
		}
	case !errors.Is(err, fs.ErrNotExist):
		notes = append(notes, fmt.Errorf("ignored %s: %w", optionsFile, err))
	}
	if o.BinaryName == "" {
		name, err := readInBundle(filepath.Join(bundle, runtimeFile), maxFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			notes = append(notes, fmt.Errorf("ignored %s: %w", runtimeFile, err))
		}
		o.BinaryName = strings.TrimSpace(string(name))
	}
	return o, errors.Join(notes...)
}

// defaultRoot is where runtimes keep their state unless the options name another place.
const defaultRoot = "/run/containerd/runc"

// newRuntime returns the runtime for a container with the given options.
func newRuntime(o *api.Options, namespace, id, bundle string) *runc.Runtime {
	root := o.GetRoot()
	if root == "" {
		root = defaultRoot
	}
	return &runc.Runtime{
		Binary:        o.GetBinaryName(),
		Root:          filepath.Join(root, namespace),
		Bundle:        bundle,
		ID:            id,
		SystemdCgroup: o.GetSystemdCgroup(),
	}
}

package shim

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"holdfast/internal/api"
	"holdfast/internal/wire"
)

// maxParams bounds what start reads from stdin. Real callers send less than a page; the figure is
// the one containerd's own shim stops at (contract 1.3).
const maxParams = 10 << 20

// Params is what a manager tells the start action, in whichever of the two protocols it speaks.
type Params struct {
	ID        string
	Namespace string
	// Address and TTRPCAddress are the manager's sockets; both may be empty (CRI-O).
	Address      string
	TTRPCAddress string
	// ContainerdBinary and ContainerdVersion may be empty; the version is known from 2.3 on.
	ContainerdBinary  string
	ContainerdVersion string
	Debug             bool
	// SocketDir is where the socket goes, "" for the default.
	SocketDir string
	// Options is never nil.
	Options *api.Options
	// NewProtocol tells that stdin held BootstrapParams, so the answer is a BootstrapResult.
	NewProtocol bool
	// Ignored says why options that were given are not in Options, "" if they are.
	Ignored string
}

// readParams reads everything that start is told. It fails if stdin is larger than maxParams, or
// if the container or its namespace has no usable name.
//
// A serialized Any of a legacy caller may also decode as BootstrapParams, with the type's name as
// the container's id. So the new protocol is believed only if id and namespace are those of the
// command line (contract 1.3).
func readParams(f *flags, env []string, stdin io.Reader) (Params, error) {
	p := Params{
		ID: f.id, Namespace: f.namespace, Address: f.address, ContainerdBinary: f.publish,
		Debug: f.debug, TTRPCAddress: lookup(env, "TTRPC_ADDRESS"), Options: &api.Options{},
	}
	data, err := readAll(stdin, maxParams)
	if err != nil {
		return Params{}, fmt.Errorf("read start parameters from stdin: %w", err)
	}
	if msg := bootstrapParams(f, data); msg != nil {
		p.merge(msg)
	} else if len(data) > 0 {
		p.decodeLegacy(data)
	}
	return p, checkNames(p.Namespace, p.ID)
}

// bootstrapParams returns data decoded in the new protocol, or nil if it is not in that.
func bootstrapParams(f *flags, data []byte) *api.BootstrapParams {
	var msg api.BootstrapParams
	if len(data) == 0 || wire.Unmarshal(data, &msg) != nil {
		return nil
	}
	same := func(flag, value string) bool { return value != "" && (flag == "" || flag == value) }
	if !same(f.id, msg.GetInstanceID()) || !same(f.namespace, msg.GetNamespace()) {
		return nil
	}
	return &msg
}

// merge adds what msg says. Flags and environment stand where it says nothing.
func (p *Params) merge(msg *api.BootstrapParams) {
	set := func(to *string, value string) {
		if value != "" {
			*to = value
		}
	}
	set(&p.ID, msg.GetInstanceID())
	set(&p.Namespace, msg.GetNamespace())
	set(&p.Address, msg.GetContainerdGrpcAddress())
	set(&p.TTRPCAddress, msg.GetContainerdTtrpcAddress())
	set(&p.ContainerdBinary, msg.GetContainerdBinary())
	set(&p.ContainerdVersion, msg.GetContainerdVersion())
	set(&p.SocketDir, msg.GetSocketDir())
	p.Debug = p.Debug || msg.GetLogLevel() <= api.LogLevel_LOG_LEVEL_DEBUG
	p.NewProtocol = true
	for _, extension := range msg.GetExtensions() {
		if isOptions(extension.GetValue()) {
			p.decode(extension.GetValue())
		}
	}
}

func (p *Params) decodeLegacy(data []byte) {
	var value api.Any
	if err := wire.Unmarshal(data, &value); err != nil {
		p.Ignored = fmt.Sprintf("stdin holds neither BootstrapParams nor an Any: %v", err)
		return
	}
	p.decode(&value)
}

// decode keeps the options if they can be read. Create will get them again and refuses what is
// wrong with them, where the message reaches the user (contract 1.3, 5).
func (p *Params) decode(value *api.Any) {
	decoded, err := DecodeOptions(value)
	if err != nil {
		p.Ignored = err.Error()
		return
	}
	p.Options = decoded
}

// checkNames refuses names that cannot be a component of a path, or that the runtime takes for a flag.
func checkNames(namespace, id string) error {
	for _, n := range []struct{ flag, value string }{{"namespace", namespace}, {"id", id}} {
		if n.value == "" {
			return fmt.Errorf("cannot run without -%s; containerd gives it, by hand add -%s NAME", n.flag, n.flag)
		}
		if n.value == "." || n.value == ".." || strings.ContainsAny(n.value, "/\x00") {
			return fmt.Errorf("cannot use -%s %q: it is part of paths; use a name without slashes", n.flag, n.value)
		}
		if n.value[0] == '-' || len(n.value) > maxID {
			return fmt.Errorf("cannot use -%s %.300q: use at most %d bytes, of which the first is no dash", n.flag, n.value, maxID)
		}
	}
	return nil
}

var errTooLarge = errors.New("too large")

// readAll reads r to its end, or fails once it has seen more than limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: the limit is %d bytes", errTooLarge, limit)
	}
	return data, nil
}

// lookup returns the value of name in env, "" if it has none. Of several the first counts, as in
// getenv(3).
func lookup(env []string, name string) string {
	for _, entry := range env {
		if key, value, _ := strings.Cut(entry, "="); key == name {
			return value
		}
	}
	return ""
}

package shim

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/api"
	"holdfast/internal/wire"
)

func TestParametersOfBothProtocols(t *testing.T) {
	crun := &api.Options{BinaryName: "crun", Root: "/r", ShimCgroup: "/shims"}
	flagged := &flags{id: "c1", namespace: "k8s.io", address: "/c.sock", publish: "/bin/containerd"}
	env := []string{"PATH=/bin", "TTRPC_ADDRESS=/c.sock.ttrpc"}
	base := Params{
		ID: "c1", Namespace: "k8s.io", Address: "/c.sock", TTRPCAddress: "/c.sock.ttrpc",
		ContainerdBinary: "/bin/containerd", Options: &api.Options{},
	}
	with := func(change func(*Params)) Params {
		p := base
		change(&p)
		return p
	}
	params := func(change func(*api.BootstrapParams)) []byte {
		msg := &api.BootstrapParams{InstanceID: "c1", Namespace: "k8s.io"}
		change(msg)
		return wire.Marshal(msg)
	}
	for _, c := range []struct {
		name  string
		flags *flags
		stdin []byte
		want  Params
	}{
		{"legacy, nothing on stdin", flagged, nil, base},
		// Without the check of identity these bytes decode as BootstrapParams of a container named
		// containerd.runc.v1.Options (contract T1).
		{"legacy, options", flagged, wire.Marshal(pack(crun)), with(func(p *Params) { p.Options = crun })},
		{"legacy, options with a prefix", flagged,
			wire.Marshal(&api.Any{TypeUrl: "type.googleapis.com/containerd.runc.v1.Options", Value: wire.Marshal(crun)}),
			with(func(p *Params) { p.Options = crun })},
		{"legacy, unknown type", flagged, wire.Marshal(&api.Any{TypeUrl: "a.B", Value: []byte("x")}),
			with(func(p *Params) { p.Ignored = "a.B" })},
		{"legacy, no message at all", flagged, []byte("\xff\xff"), with(func(p *Params) { p.Ignored = "neither" })},
		{"new, the least", flagged, params(func(*api.BootstrapParams) {}),
			with(func(p *Params) { p.NewProtocol = true })},
		{"new, everything", flagged,
			params(func(m *api.BootstrapParams) {
				m.LogLevel = api.LogLevel_LOG_LEVEL_TRACE
				m.ContainerdVersion = "2.4.2"
				m.ContainerdTtrpcAddress = "/t"
				m.ContainerdGrpcAddress = "/g"
				m.ContainerdBinary = "/b"
				m.SocketDir = new("/s")
				m.Extensions = []*api.Extension{
					{Value: &api.Any{TypeUrl: "some.Future"}}, {}, {Value: pack(crun)},
				}
			}),
			Params{
				ID: "c1", Namespace: "k8s.io", Address: "/g", TTRPCAddress: "/t", ContainerdBinary: "/b",
				ContainerdVersion: "2.4.2", Debug: true, SocketDir: "/s", Options: crun, NewProtocol: true,
			}},
		{"new, flags have disappeared", &flags{}, params(func(*api.BootstrapParams) {}), Params{
			ID: "c1", Namespace: "k8s.io", TTRPCAddress: "/c.sock.ttrpc", Options: &api.Options{}, NewProtocol: true,
		}},
		{"new, of another container", &flags{id: "c2", namespace: "k8s.io"}, params(func(*api.BootstrapParams) {}), Params{
			ID: "c2", Namespace: "k8s.io", TTRPCAddress: "/c.sock.ttrpc", Options: &api.Options{}, Ignored: "c1",
		}},
		{"debug by flag", &flags{id: "c1", namespace: "k8s.io", debug: true}, nil, Params{
			ID: "c1", Namespace: "k8s.io", TTRPCAddress: "/c.sock.ttrpc", Options: &api.Options{}, Debug: true,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readParams(c.flags, env, bytes.NewReader(c.stdin))
			if err != nil {
				t.Fatal(err)
			}
			if (c.want.Ignored == "") != (got.Ignored == "") || !strings.Contains(got.Ignored, c.want.Ignored) {
				t.Errorf("ignored is %q, want something about %q", got.Ignored, c.want.Ignored)
			}
			got.Ignored = c.want.Ignored
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// endless is a stdin that never ends.
type endless struct{ read int64 }

func (e *endless) Read(b []byte) (int, error) { e.read += int64(len(b)); return len(b), nil }

func TestEndlessParametersAreRefused(t *testing.T) {
	stdin := &endless{}
	_, err := readParams(&flags{id: "x", namespace: "n"}, nil, stdin)
	if !errors.Is(err, errTooLarge) {
		t.Errorf("error is %v, want %v", err, errTooLarge)
	}
	if stdin.read > maxParams+1 {
		t.Errorf("read %d bytes before it gave up", stdin.read)
	}
}

func TestParametersThatCannotBeReadAreAnError(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("x"), iotestErrReader{})
	if _, err := readParams(&flags{id: "x", namespace: "n"}, nil, broken); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error is %v", err)
	}
}

type iotestErrReader struct{}

func (iotestErrReader) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

func FuzzReadParams(f *testing.F) {
	f.Add("c1", "n", []byte(nil))
	f.Add("c1", "n", wire.Marshal(pack(&api.Options{BinaryName: "crun"})))
	f.Add("c1", "n", wire.Marshal(&api.BootstrapParams{InstanceID: "c1", Namespace: "n"}))
	f.Add("", "", wire.Marshal(&api.BootstrapParams{InstanceID: "c1", Namespace: "n", SocketDir: new("/s")}))
	f.Add("../x", "", []byte("\x0a\x01"))
	f.Fuzz(func(t *testing.T, id, namespace string, stdin []byte) {
		got, err := readParams(&flags{id: id, namespace: namespace}, nil, bytes.NewReader(stdin))
		if err != nil {
			return
		}
		switch {
		case id != "" && got.ID != id, namespace != "" && got.Namespace != namespace:
			t.Errorf("asked for %q in %q, got %q in %q", id, namespace, got.ID, got.Namespace)
		case got.Options == nil:
			t.Error("no options")
		case checkNames(got.Namespace, got.ID) != nil:
			t.Errorf("took the names %q and %q", got.Namespace, got.ID)
		}
	})
}

// Ids and namespaces are parts of paths and of command lines: every action looks at them itself.
func TestNamesAreCheckedByEveryAction(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "../c1", "a/b", "/c1", "-force", strings.Repeat("x", 201)} {
		for _, action := range []string{"start", "delete", ""} {
			for _, names := range [][2]string{{"ns", bad}, {bad, "c1"}} {
				var stdout, stderr bytes.Buffer
				c := &call{
					binary: "shim", stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
					flags: &flags{namespace: names[0], id: names[1], action: action, bundle: t.TempDir(), socket: filepath.Join(t.TempDir(), "s")},
				}
				var err error
				if action == "" {
					_, err = daemonParams(c, c.bundle)
				} else {
					err = actionNamed(action)(t.Context(), c)
				}
				if err == nil || !strings.Contains(err.Error(), "cannot ") || stdout.Len() > 0 {
					t.Errorf("%q with namespace %.20q and id %.20q: error %v, answer %q", action, names[0], names[1], err, stdout.String())
				}
			}
		}
	}
}

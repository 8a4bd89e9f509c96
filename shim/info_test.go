package shim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/api"
	"holdfast/internal/wire"
)

// fakeRuntime makes a runtime of a shell script.
func fakeRuntime(t testing.TB, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInfo(t *testing.T) {
	good := fakeRuntime(t, `test "$*" = features && echo '{ "ociVersionMin": "1.0.0",
 "mountOptions": ["rro"] }'`)
	old := fakeRuntime(t, "echo 'unknown command' >&2; exit 1")
	garbage := fakeRuntime(t, "echo no json")
	const features = `{"ociVersionMin":"1.0.0","mountOptions":["rro"]}`
	for _, c := range []struct {
		name    string
		options *api.Any
		want    string // features, "" for none
	}{
		{"runc options", pack(&api.Options{BinaryName: good}), features},
		{"table", pack(&api.RuntimeOptions{ConfigBody: fmt.Appendf(nil, "BinaryName = %q", good)}), features},
		{"runtime without the verb", pack(&api.Options{BinaryName: old}), ""},
		{"runtime that answers garbage", pack(&api.Options{BinaryName: garbage}), ""},
		{"no such runtime", pack(&api.Options{BinaryName: "/none/such"}), ""},
		{"unknown options", &api.Any{TypeUrl: "a.B", Value: []byte("x")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, "2.4")
			m.bundle("any", nil)
			r := m.run("any", []string{"-info"}, wire.Marshal(c.options))
			if r.code != 0 || len(r.stderr) > 0 {
				t.Fatalf("exit status %d, stderr %q", r.code, r.stderr)
			}
			var got api.RuntimeInfo
			if err := wire.Unmarshal(r.stdout, &got); err != nil {
				t.Fatal(err)
			}
			if got.GetVersion().GetVersion() == "" {
				t.Error("no version")
			}
			want := &api.RuntimeInfo{Name: "io.containerd.holdfast.v2", Version: got.GetVersion(), Options: c.options}
			if c.want != "" {
				want.Features = &api.Any{
					TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/features/Features", Value: []byte(c.want),
				}
			}
			if diff := cmp.Diff(want, &got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInfoWithoutOptions(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("any", nil)
	r := m.run("any", []string{"-info"}, nil)
	var got api.RuntimeInfo
	if err := wire.Unmarshal(r.stdout, &got); err != nil || r.code != 0 || len(r.stderr) > 0 || got.GetOptions() != nil {
		t.Errorf("%v, exit status %d, stderr %q, options %v", err, r.code, r.stderr, got.GetOptions())
	}
	if r := m.run("any", []string{"-info"}, []byte("\xff")); r.code != 1 || len(r.stdout) > 0 {
		t.Errorf("with garbage: exit status %d, stdout %q", r.code, r.stdout)
	}
}

// TestFeaturesForCRIO asks as CRI-O does, for the runtime that is found in PATH.
func TestFeaturesForCRIO(t *testing.T) {
	m := newManager(t, "cri-o")
	m.bundle("any", nil)
	runtime := fakeRuntime(t, `echo '{"ociVersionMin":"1.0.0"}'`)
	if err := os.Rename(runtime, filepath.Join(filepath.Dir(runtime), "runc")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(runtime)+":"+os.Getenv("PATH"))
	r := m.run("any", []string{"features"}, nil)
	if !json.Valid(r.stdout) || !strings.Contains(string(r.stdout), "ociVersionMin") || r.code != 0 || len(r.stderr) > 0 {
		t.Errorf("exit status %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	t.Setenv("PATH", "/none")
	if r := m.run("any", []string{"features"}, nil); r.code != 1 || len(r.stdout) > 0 || bytes.Count(r.stderr, []byte("\n")) != 1 {
		t.Errorf("without runtime: exit status %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func TestVersion(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("any", nil)
	for _, flag := range []string{"-v", "-version", "--version"} {
		r := m.run("any", []string{flag}, nil)
		if text := string(r.stdout); r.code != 0 || len(r.stderr) > 0 || !strings.HasPrefix(text, "containerd-shim-holdfast-v2:\n  Version:  ") || !strings.Contains(text, "go1.") {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q", flag, r.code, r.stdout, r.stderr)
		}
	}
}

func TestRuntimeNameFollowsTheBinary(t *testing.T) {
	for binary, want := range map[string]string{
		"/usr/bin/containerd-shim-runc-v2": "io.containerd.runc.v2",
		"containerd-shim-holdfast-v2":      "io.containerd.holdfast.v2",
		"/opt/shim":                        "io.containerd.holdfast.v2",
	} {
		if got := runtimeName(binary); got != want {
			t.Errorf("%s is %s, want %s", binary, got, want)
		}
	}
}

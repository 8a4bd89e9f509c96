package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"holdfast/internal/api"

	"holdfast/internal/wire"
)

func TestDecodeOptionsOfEachType(t *testing.T) {
	full := &api.Options{
		BinaryName: "/usr/bin/crun", Root: "/run/r", SystemdCgroup: true, NoPivotRoot: true, NoNewKeyring: true,
		ShimCgroup: "/s", IoUid: 1000, IoGid: 4294967295, CriuImagePath: "/i", CriuWorkPath: "/w",
	}
	const table = `
# as in config.toml of containerd
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x.options]
  BinaryName = "/usr/bin/crun"   # the runtime
  Root = '/run/r'
  SystemdCgroup = true
  NoPivotRoot = true
  NoNewKeyring = true
  ShimCgroup = "\u002fs"
  IoUid = 1_000
  IoGid = 0xffff_ffff
  CriuImagePath = "/i"
  CriuWorkPath = "/w"
  CriuPath = "/ignored"
  Future = { a = [1, 2], b = "}" }
`
	path := filepath.Join(t.TempDir(), "runtime.toml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(table, "\n", "\r\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		value *api.Any
		want  *api.Options
	}{
		{"none", nil, &api.Options{}},
		{"zero", &api.Any{}, &api.Options{}},
		{"of a type without content", &api.Any{TypeUrl: runcOptions}, &api.Options{}},
		{"runc, bare", pack(full), full},
		{"runc, prefixed", &api.Any{TypeUrl: "type.googleapis.com/" + runcOptions, Value: wire.Marshal(full)}, full},
		{"table, without content", &api.Any{TypeUrl: tableOptions}, &api.Options{}},
		{"table, body", pack(&api.RuntimeOptions{ConfigBody: []byte(table)}), full},
		{"table, path", pack(&api.RuntimeOptions{TypeUrl: "x", ConfigPath: path}), full},
		{"table, body before path", pack(&api.RuntimeOptions{ConfigPath: "/none", ConfigBody: []byte(table)}), full},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeOptions(c.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	table := func(text string) *api.Any { return pack(&api.RuntimeOptions{ConfigBody: []byte(text)}) }
	fifo := filepath.Join(t.TempDir(), "fifo")
	makeFIFO(t, fifo)
	for _, c := range []struct {
		value *api.Any
		want  string // part of the message
	}{
		{&api.Any{TypeUrl: "containerd.linux.runc.CreateOptions", Value: []byte("x")}, "containerd.linux.runc.CreateOptions"},
		{&api.Any{TypeUrl: runcOptions, Value: []byte("\xff")}, runcOptions},
		{&api.Any{TypeUrl: tableOptions, Value: []byte("\xff")}, tableOptions},
		{&api.Any{Value: []byte("x")}, `""`},
		{table("BinaryName = 7"), "line 1: BinaryName has a value of the wrong kind"},
		{table("\nIoUid = -1"), "line 2: IoUid"},
		{table("IoGid = 4294967296"), "IoGid"},
		{table("Root = 'a'\n[other]\nRoot = 'b'"), "line 3: Root is set twice"},
		{table("Root = \"a"), "no end"},
		{table("Root = \"a\nb\""), "no end on its line"},
		{table("Root = 'a' 'b'"), "something follows"},
		{table("Root"), "equals sign"},
		{table("= 1"), "not a key"},
		{table("Root ="), "there is none"},
		{table("x = [1, [2]"), "bracket"},
		{table("x = '''"), "no end"},
		{table(`Root = "\q"`), "escape"},
		{pack(&api.RuntimeOptions{ConfigPath: "/does/not/exist.toml"}), "/does/not/exist.toml"},
		{pack(&api.RuntimeOptions{ConfigPath: fifo}), "not a regular file"},
	} {
		t.Run(c.want, func(t *testing.T) {
			got, err := DecodeOptions(c.value)
			if !errors.Is(err, errdefs.ErrInvalidArgument) || got != nil {
				t.Fatalf("got %v, %v", got, err)
			}
			if errors.Is(err, os.ErrNotExist) {
				t.Error("the error would tell containerd that there is no such task")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("message is %q, want it to have %q", err, c.want)
			}
		})
	}
}

func TestTableSkipsWhatIsNoOption(t *testing.T) {
	got, err := parseTable("\ufeff" + `
title = """a "quoted" # = text
BinaryName = "no"
"""
re = '''
Root = "no"'''
when = 1979-05-27 07:32:00Z # a date
list = [ "]", # comment ]
  '[', { x = 1 }, 2.5, inf, ]
a."b c".d = 'e'
options."binary_name" = "yes"
"ROOT" = "/r"
systemd_cgroup = false`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&api.Options{BinaryName: "yes", Root: "/r"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzTable(f *testing.F) {
	f.Add("BinaryName = \"runc\"\n", "crun")
	f.Add("[a.'b']\nx = [1, {y = \"\"\"z\"\"\"}]\n", "\x00\"\\")
	f.Add("x = '''\n''''\n", "\u2028\U0010ffff")
	f.Add("x = 1e3 # c\r\n", "\r\n\t")
	f.Fuzz(func(t *testing.T, text, name string) {
		before, err := parseTable(text)
		if err == nil && before == nil {
			t.Fatal("neither options nor an error")
		}
		// Whatever stands before it, a quoted string comes out as it went in.
		if err != nil || before.BinaryName != "" || validText(name) != nil {
			return
		}
		after, err := parseTable(text + fmt.Sprintf("\nBinaryName = %s\n", strconv.Quote(name)))
		if err != nil {
			if strings.Contains(err.Error(), "set twice") { // with an empty value before
				return
			}
			t.Fatalf("%q: %v", name, err)
		}
		if after.BinaryName != name {
			t.Errorf("%q became %q", name, after.BinaryName)
		}
	})
}

func TestOptionsOutliveTheShimInTheBundle(t *testing.T) {
	bundle := t.TempDir()
	want := &api.Options{BinaryName: "crun", Root: "/r", SystemdCgroup: true, IoUid: 7}
	for range 2 { // once over nothing, once over the old
		if err := SaveOptions(bundle, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadOptions(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if names := fileNames(t, bundle); !cmp.Equal(names, []string{"options.json", "runtime"}) {
		t.Errorf("the bundle has %v", names)
	}
	for file, content := range map[string]string{
		"options.json": `{"io_uid":7,"binary_name":"crun","root":"/r","systemd_cgroup":true}`,
		"runtime":      "crun",
	} {
		if text := readText(t, filepath.Join(bundle, file)); text != content {
			t.Errorf("%s has %s, want %s", file, text, content)
		}
		if mode := fileMode(t, filepath.Join(bundle, file)); mode != 0o600 {
			t.Errorf("%s has mode %o", file, mode)
		}
	}
	if err := SaveOptions(filepath.Join(bundle, "none"), want); err == nil {
		t.Error("saved into a bundle that does not exist")
	}
}

func TestLoadOptionsFromAnyBundle(t *testing.T) {
	for _, c := range []struct {
		name, json, runtime string // "-" for no file
		want                *api.Options
		note                bool
	}{
		{"nothing", "-", "-", &api.Options{}, false},
		{"empty runtime", "{}", "", &api.Options{}, false},
		{"only runtime", "-", "crun\n", &api.Options{BinaryName: "crun"}, false},
		{"only options", `{"root":"/r","binary_name":"b"}`, "-", &api.Options{Root: "/r", BinaryName: "b"}, false},
		{"stock shim", `{"root":"/r"}`, "crun", &api.Options{Root: "/r", BinaryName: "crun"}, false},
		{"unknown field", `{"root":"/r","future":{}}`, "-", &api.Options{Root: "/r"}, false},
		{"truncated", `{"root":"/r","bina`, "crun", &api.Options{BinaryName: "crun"}, true},
		{"empty file", "", "-", &api.Options{}, true},
		{"wrong kind", `{"root":"/r","io_uid":"x"}`, "-", &api.Options{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bundle := t.TempDir()
			for file, text := range map[string]string{"options.json": c.json, "runtime": c.runtime} {
				if text != "-" {
					writeText(t, filepath.Join(bundle, file), text)
				}
			}
			got, note := LoadOptions(bundle)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if (note != nil) != c.note {
				t.Errorf("note is %v", note)
			}
		})
	}
}

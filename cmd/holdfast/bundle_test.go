package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigIsChangedNoMoreThanNeeded(t *testing.T) {
	user := t.TempDir()
	rows := []struct {
		name     string
		config   string
		t        bool   // -t
		want     string // "" = the same bytes
		terminal bool
	}{
		{
			name:   "nothing to change",
			config: `{ "root":{"path":"/r"},  "process":{"terminal":false}, "mounts":[{"type":"proc","source":"proc"}]}`,
		},
		{
			name:     "a terminal of its own",
			config:   `{"root":{"path":"/r"}, "process":{"terminal":true}}`,
			terminal: true,
		},
		{
			name: "a terminal asked for that is there", t: true,
			config:   `{"root":{"path":"/r"}, "process":{"terminal":true}}`,
			terminal: true,
		},
		{
			name: "a terminal asked for", t: true,
			config:   `{"root":{"path":"/r"}, "process":{"args":["sh"],"future":{"x":1}}, "future":9007199254740993}`,
			want:     `{"root":{"path":"/r"}, "process":{"args":["sh"],"future":{"x":1},"terminal":true}, "future":9007199254740993}`,
			terminal: true,
		},
		{
			name:   "relative paths",
			config: `{"root":{"path":"rootfs","readonly":true,"x":1}, "mounts":[{"source":"a"},{"source":"b","type":"bind"},{"source":"c/../d","options":["ro","rbind"]},{"source":"/e","type":"bind"}]}`,
			want: `{"root":{"path":"USER/rootfs","readonly":true,"x":1}, "mounts":[{"source":"a"},{"source":"USER/b","type":"bind"},` +
				`{"source":"USER/d","options":["ro","rbind"]},{"source":"/e","type":"bind"}]}`,
		},
		{name: "nothing at all", config: `{}`},
		{name: "no process to give a terminal to", t: true, config: `{}`, terminal: true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			write(t, filepath.Join(user, "config.json"), row.config)
			dir := filepath.Join(t.TempDir(), "bundle")
			terminal, err := copyBundle(dir, user, row.t)
			if err != nil || terminal != row.terminal {
				t.Fatalf("terminal %v, error %v; want %v", terminal, err, row.terminal)
			}
			got, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			if row.want == "" {
				if string(got) != row.config {
					t.Errorf("got %s, want the same bytes", got)
				}
				return
			}
			if diff := cmp.Diff(canonical(t, strings.ReplaceAll(row.want, "USER", user)), canonical(t, string(got))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBrokenConfigIsExplained(t *testing.T) {
	user := t.TempDir()
	for _, config := range []string{
		``, `[]`, `{"root":`, `{"root":[]}`, `{"root":{"path":1}}`, `{"process":{"terminal":"yes"}}`,
		`{"mounts":{}}`, `{"mounts":[{"options":"bind"}]}`, `{"mounts":[{"type":"bind","source":1}]}`,
	} {
		write(t, filepath.Join(user, "config.json"), config)
		_, err := copyBundle(filepath.Join(t.TempDir(), "bundle"), user, true)
		if err == nil || !strings.Contains(err.Error(), user+"/config.json") {
			t.Errorf("%s: error %v", config, err)
		}
	}
}

func FuzzCopyBundle(f *testing.F) {
	f.Add(`{"root":{"path":"rootfs"},"process":{"terminal":false},"mounts":[{"type":"bind","source":"a"}]}`)
	f.Add(`{"mounts":[null],"root":null,"process":null}`)
	f.Fuzz(func(t *testing.T, config string) {
		user, dir := t.TempDir(), filepath.Join(t.TempDir(), "bundle")
		write(t, filepath.Join(user, "config.json"), config)
		if _, err := copyBundle(dir, user, true); err != nil {
			return
		}
		got, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil || !json.Valid(got) {
			t.Errorf("%q became %q, error %v", config, got, err)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// canonical formats JSON with sorted names, and numbers as they are written.
func canonical(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

package shim

import (
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestGroupOfAContainer(t *testing.T) {
	for _, c := range []struct {
		name, spec string // "-" for no config.json
		want       string
	}{
		{"no spec", "-", "c1"},
		{"no annotations", `{"ociVersion":"1.0.2"}`, "c1"},
		{"null", `null`, "c1"},
		{"annotations null", `{"annotations":null}`, "c1"},
		{"sandbox", `{"a":{"annotations":{"io.kubernetes.cri.sandbox-id":"no"}},"annotations":{"x":"y","io.kubernetes.cri.sandbox-id":"p1"}}`, "p1"},
		{"group comes before sandbox", `{"annotations":{"io.kubernetes.cri.sandbox-id":"p1","io.containerd.runc.v2.group":"g1"}}`, "g1"},
		{"empty group", `{"annotations":{"io.containerd.runc.v2.group":"","io.kubernetes.cri.sandbox-id":"p1"}}`, "p1"},
		{"empty both", `{"annotations":{"io.containerd.runc.v2.group":"","io.kubernetes.cri.sandbox-id":""}}`, "c1"},
		{"CRI-O does not group", `{"annotations":{"io.kubernetes.cri-o.SandboxID":"p1"}}`, "c1"},
		{"escapes", `{"\u0061nnotations" : { "io.kubernetes.cri.sandbox\u002did" : "p\"\\\u00e9" } }`, "p\"\\é"},
		{"what follows is not read", `{"annotations":{"io.kubernetes.cri.sandbox-id":"p1"},"linux":{`, "p1"},
		{"values of all kinds before", `{"a":[1,{"b":"]}\""},-2e3,true],"c":null,"d":"\\","annotations":{"n":{"x":[]},"io.kubernetes.cri.sandbox-id":"p1"}}`, "p1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bundle := t.TempDir()
			if c.spec != "-" {
				writeText(t, filepath.Join(bundle, "config.json"), c.spec)
			}
			notes, err := readAnnotations(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if got := notes.key("c1"); got != c.want {
				t.Errorf("group is %q, want %q", got, c.want)
			}
		})
	}
}

func TestSpecsThatAreRefused(t *testing.T) {
	for _, spec := range []string{
		``, `{`, `[]`, `{"annotations":{"io.kubernetes.cri.sandbox-id":"p`, `{"annotations":7}`, `{"a"}`, `{"a" 1}`,
		`{a:1}`, `{"a":}`, `{"annotations":{"io.kubernetes.cri.sandbox-id":7}}`, `{"x":"` + strings.Repeat("y", 1000),
		`{"annotations":{"io.kubernetes.cri.sandbox-id":"\q"}}`,
		`{"annotations":{"io.kubernetes.cri.sandbox-id":"` + strings.Repeat("y", maxText+1) + `"}}`,
	} {
		bundle := t.TempDir()
		path := filepath.Join(bundle, "config.json")
		writeText(t, path, spec)
		if notes, err := readAnnotations(bundle); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: got %+v, %v", spec, notes, err)
		}
	}
}

// TestHugeSpecIsReadInConstantMemory has a spec with huge strings in all places.
func TestHugeSpecIsReadInConstantMemory(t *testing.T) {
	for _, c := range []struct {
		name        string
		head, tail  string
		size        int64
		wantErr     error
		wantSandbox string
	}{
		{"value beside annotations", `{"hostname":"`, `","annotations":{"io.kubernetes.cri.sandbox-id":"p1"}}`, 3 << 20, nil, "p1"},
		{"other annotation", `{"annotations":{"x":"`, `","io.kubernetes.cri.sandbox-id":"p1"}}`, 3 << 20, nil, "p1"},
		{"key", `{"`, `":1,"annotations":{"io.kubernetes.cri.sandbox-id":"p1"}}`, 3 << 20, nil, "p1"},
		{"our annotation", `{"annotations":{"io.kubernetes.cri.sandbox-id":"`, `"}}`, 3 << 20, errTooLarge, ""},
		{"beyond the limit", `{"hostname":"`, `"}`, 5 << 20, errTooLarge, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			filler := io.LimitReader(constant('y'), c.size)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			found, err := scanAnnotations(io.MultiReader(strings.NewReader(c.head), filler, strings.NewReader(c.tail)), 4<<20)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.wantErr) || found.sandbox != c.wantSandbox {
				t.Errorf("got %q, %v", found.sandbox, err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				t.Errorf("allocated %d bytes", got)
			}
		})
	}
}

// constant reads the same byte for ever.
type constant byte

func (c constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c)
	}
	return len(b), nil
}

func FuzzAnnotations(f *testing.F) {
	f.Add([]byte(`{"annotations":{"io.kubernetes.cri.sandbox-id":"p1","io.containerd.runc.v2.group":"g"}}`))
	f.Add([]byte(`{"a":[{"b":"\""}],"annotations":{"x":{},"io.kubernetes.cri.sandbox-id":"\u00e9"},"z":1}`))
	f.Add([]byte(`{"process":null,"annotations":{}}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		found, err := scanAnnotations(strings.NewReader(string(spec)), maxSpec)
		// Where the library reads a spec, we read the same.
		var want struct {
			Annotations map[string]any `json:"annotations"`
		}
		if plain := strings.Count(string(spec), "nnotations") == 1; !plain || json.Unmarshal(spec, &want) != nil {
			return
		}
		value, there := want.Annotations[sandboxAnnotation]
		text, isText := value.(string)
		duplicate := strings.Count(string(spec), "sandbox") > 1 || strings.Contains(string(spec), `\u`)
		if duplicate || !there || !isText || strings.ContainsRune(text, '\ufffd') {
			return
		}
		if err == nil && found.sandbox != text {
			t.Errorf("found %q, want %q", found.sandbox, text)
		}
	})
}

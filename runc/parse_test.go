package runc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestLastErrorOfALog(t *testing.T) {
	for _, row := range []struct{ name, log, want string }{
		{"empty", "", ""},
		{"runc", `{"level":"error","msg":"container does not exist","time":"2026-01-02T03:04:05Z"}` + "\n", "container does not exist"},
		{"crun", `{"msg":"the container is paused","level":"error","time":"2026-01-02T03:04:05.123Z"}` + "\n", "the container is paused"},
		{"youki", `{"timestamp":"2026-01-02T03:04:05.123Z","level":"ERROR","message":"container c does not exist.","target":"youki"}` + "\n", "container c does not exist."},
		{"older youki", `{"timestamp":"x","level":"ERROR","fields":{"message":"no"},"target":"youki"}` + "\n", "no"},
		{"last counts", `{"level":"error","msg":"a"}` + "\n" + `{"level":"error","msg":"b"}` + "\n", "b"},
		{"warnings do not", `{"level":"error","msg":"a"}` + "\n" + `{"level":"warning","msg":"b"}` + "\n", "a"},
		{"no newline at the end", `{"level":"error","msg":"a"}`, "a"},
		{"two on a line", `{"level":"error","msg":"a"}{"level":"error","msg":"b"}`, "b"},
		{"cut in the middle", `level":"error","msg":"x"}` + "\n" + `{"level":"error","msg":"a"}` + "\n" + `{"level":"err`, "a"},
		{"text between", "time=now level=error msg=x\n" + `{"level":"error","msg":"a"}` + "\nSegmentation fault\n", "a"},
		{"other types", `{"level":50,"msg":"x"}` + "\n" + `{"level":"error","msg":"a","fields":"none"}` + "\n" + `["error"]` + "\n", "a"},
		{"empty message", `{"level":"error","msg":"a"}` + "\n" + `{"level":"error","msg":" "}` + "\n", "a"},
		{"fatal", `{"level":"fatal","msg":"a"}`, "a"},
	} {
		if got := lastError([]byte(row.log)); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestSpecHasWhatTheShimAsksFor(t *testing.T) {
	bundle := t.TempDir()
	text := `{"ociVersion": "1.2.0", "process": {"terminal": true, "args": ["sh"], "env": ["A=b"], "selinuxLabel": "system_u:c0"},
		"root": {"path": "rootfs"}, "annotations": {"k": "v"}, "hooks": {"prestart": [{"path": "/x"}]},
		"linux": {"cgroupsPath": "/a/b", "resources": {"memory": {"limit": 1024}, "cpu": {"shares": 2}},
		"uidMappings": [{"containerID": 1, "hostID": 7, "size": 9}, {"containerID": 0, "hostID": 4294967295, "size": 1}],
		"gidMappings": [{"hostID": 5, "size": 65536}, {"hostID": 6, "size": 0}],
		"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/n"}]}}`
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	want := Spec{
		Terminal: true, SELinuxLabel: "system_u:c0", Root: "rootfs", Annotations: map[string]string{"k": "v"},
		CgroupsPath: "/a/b", MemoryLimit: 1024, PrivatePID: true,
		RootUID: 1<<32 - 1, RootGID: 5,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestPidNamespaceIsPrivateOnlyIfItIsNew(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`:              false,
		`{"linux": null}`: false,
		`{"linux": {"namespaces": [{"type": "mount"}]}}`:                                 false,
		`{"linux": {"namespaces": [{"type": "pid"}]}}`:                                   true,
		`{"linux": {"namespaces": [{"type": "pid", "path": ""}]}}`:                       true,
		`{"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}`:         false,
		`{"linux": {"namespaces": [{"type": "ipc", "path": "/x"}, {"type": "pid"}]}}`:    true,
		`{"linux": {"namespaces": [{"type": "pid"}], "resources": {"memory": {}}}} junk`: true,
	} {
		spec, err := parseSpec(strings.NewReader(text))
		if err != nil || spec.PrivatePID != want {
			t.Errorf("%s: %v, %v; want %v", text, spec.PrivatePID, err, want)
		}
	}
}

func TestUnreadableSpecIsAnErrorOfNoKind(t *testing.T) {
	bundle := t.TempDir()
	check := func(what, words string) {
		spec, err := ReadSpec(bundle)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: error %v, want %q", what, err, words)
		}
		if diff := cmp.Diff(Spec{}, spec); diff != "" {
			t.Errorf("%s: spec (-want +got):\n%s", what, diff)
		}
		if errors.Is(err, fs.ErrNotExist) || errdefs.IsNotFound(err) {
			t.Errorf("%s: ttrpc could take the error for a missing task", what)
		}
	}
	check("missing", "no such file")
	for text, words := range map[string]string{"": "EOF", `{"linux": {`: "unexpected EOF", `{"linux": 7}`: "cannot unmarshal"} {
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		check(text, words)
	}
	if _, err := parseSpec(&endless{}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("endless file: error %v", err)
	}
}

// endless is a JSON string that never ends.
type endless struct{ begun bool }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	if !e.begun {
		copy(p, `{"ociVersion":"`)
		e.begun = true
	}
	return len(p), nil
}

func TestPidFileIsReadStrictly(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "4711": 4711, "4194304": 4194304, "12\n": 12} {
		if got, err := parsePid([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "\n", "0", "00", "007", "+7", "-7", " 7", "7 ", "7\n\n", "7\r\n", "0x7", "4194305", "18446744073709551617", "7\x00", "seven", "7_0"} {
		if got, err := parsePid([]byte(text)); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		}
	}
}

func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"container does not exist"}` + "\n"))
	f.Add([]byte(`{"timestamp":"x","level":"ERROR","fields":{"message":"no"}}`))
	f.Add([]byte("{\"level\":\"error\",\"msg\":\"\xff\"}{\n{"))
	f.Fuzz(func(t *testing.T, log []byte) {
		msg := clean(lastError(log))
		if !utf8.ValidString(msg) || len(msg) > capLimit {
			t.Errorf("message %q", msg)
		}
		classify("kill", msg)
	})
}

func FuzzClean(f *testing.F) {
	f.Add("é", 9000)
	f.Add("\xff\xfe", 20000)
	f.Fuzz(func(t *testing.T, text string, times int) {
		if times < 0 || times > 1<<15 || len(text) > 64 {
			t.Skip("too large to tell us anything")
		}
		if got := clean(strings.Repeat(text, times)); !utf8.ValidString(got) || len(got) > capLimit {
			t.Errorf("%d bytes, valid: %v", len(got), utf8.ValidString(got))
		}
	})
}

func FuzzPid(f *testing.F) {
	for _, seed := range []string{"1", "4194304", "4194305", "12\n", "\n", "+1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if pid, err := parsePid(text); err == nil && (pid < 1 || pid > maxPid || len(text) > 8) {
			t.Errorf("%q was taken for %d", text, pid)
		}
	})
}

func FuzzPids(f *testing.F) {
	for _, seed := range []string{"null", "[]", "[1,2]\n", "[\n  1\n]\n", "[4194305]", "[1e3]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		pids, err := parsePids(text)
		for _, pid := range pids {
			if err != nil || pid < 1 || pid > maxPid {
				t.Errorf("%q gave %v, %v", text, pids, err)
			}
		}
	})
}

func FuzzSpec(f *testing.F) {
	f.Add(`{"linux": {"namespaces": [{"type": "pid"}], "resources": {"memory": {"limit": -1}}}}`)
	f.Add(`{"process": {"terminal": true}, "annotations": {"a": "b"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if spec, err := parseSpec(strings.NewReader(text)); err != nil && !cmp.Equal(spec, Spec{}) {
			t.Errorf("%q gave %+v with %v", text, spec, err)
		}
	})
}

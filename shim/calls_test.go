package shim

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What the runtime reads, however it treats the case of keys, is what the request says; and nothing else changes.
func TestTerminalIsThatOfTheRequest(t *testing.T) {
	for _, spec := range []string{
		`{}`, ` {"args":["true"]}`, `{"args":["true"],"new":{"x":[1]}}`, `{"terminal":true,"cwd":"/"}`, `{"terminal":false}`,
		`{"Terminal":true}`, `{"TERMINAL":true,"terminal":false}`, `{"\u0074erminal":true}`, `{"args":["terminal","\u003c"]}`,
		`{"terminal":false,"terminal":true}`,
	} {
		for _, terminal := range []bool{false, true} {
			got, err := withTerminal([]byte(spec), terminal)
			if err != nil {
				t.Errorf("%s: %v", spec, err)
				continue
			}
			var process specs.Process
			var exact map[string]any
			if err := json.Unmarshal(got, &process); err != nil || process.Terminal != terminal {
				t.Errorf("%s with %v: %s, %v", spec, terminal, got, err)
			}
			if err := json.Unmarshal(got, &exact); err != nil || (exact["terminal"] == true) != terminal {
				t.Errorf("%s with %v: %s, %v", spec, terminal, got, err)
			}
			var was map[string]any
			if err := json.Unmarshal([]byte(spec), &was); err != nil {
				t.Fatal(err)
			}
			delete(was, "terminal")
			delete(exact, "terminal")
			before, _ := json.Marshal(was)
			after, _ := json.Marshal(exact)
			if string(before) != string(after) {
				t.Errorf("%s with %v: %s became %s", spec, terminal, before, after)
			}
		}
	}
	for _, spec := range []string{"", "null", "[]", "7", `"x"`, "{", `{"args":}`, "{} {}"} {
		if got, err := withTerminal([]byte(spec), false); err == nil {
			t.Errorf("%q became %s", spec, got)
		}
	}
}

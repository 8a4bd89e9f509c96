package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"sigs.k8s.io/yaml"
)

// A block is a piece of configuration or commands in a document.
type block struct {
	file, kind, text string
	line             int
}

// blocks returns those of all documents: fenced ones, with what stands behind the fence as their kind,
// and indented ones, which are commands.
func blocks(t *testing.T) (all []block) {
	t.Helper()
	paths := []string{"../../README.md"}
	err := filepath.WalkDir("../../docs", func(path string, _ os.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, blocksOf(path, string(text))...)
	}
	return all
}

func blocksOf(path, text string) (all []block) {
	var now *block // the fenced one that we are in
	before := ""
	number := 0
	for line := range strings.Lines(text) {
		number++
		fence, isFence := strings.CutPrefix(line, "```")
		command, indented := strings.CutPrefix(line, "    ")
		switch {
		case now != nil && isFence:
			all, now = append(all, *now), nil
		case now != nil:
			now.text += line
		case isFence:
			now = &block{file: path, kind: strings.TrimSpace(fence), line: number}
		case indented && strings.TrimSpace(before) == "":
			all = append(all, block{path, "sh", command, number})
		case indented && len(all) > 0 && all[len(all)-1].kind == "sh" && strings.HasPrefix(before, "    "):
			all[len(all)-1].text += command
		}
		before = line
	}
	return all
}

// Every block of the documents can be read by the program it is for.
func TestDocumentedConfigurationIsUnderstood(t *testing.T) {
	seen := map[string]int{}
	for _, b := range blocks(t) {
		seen[b.kind]++
		if err := b.check(t); err != nil {
			t.Errorf("%s:%d: %v\n%s", b.file, b.line, err, b.text)
		}
	}
	for _, kind := range []string{"sh", "toml", "json", "yaml", "ini"} {
		if seen[kind] == 0 {
			t.Errorf("there is no block of kind %s: does the test look at the documents?", kind)
		}
	}
}

func (b block) check(t *testing.T) error {
	switch b.kind {
	case "sh", "":
		cmd := exec.Command("bash", "-n")
		cmd.Stdin = strings.NewReader(b.text)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	case "text":
	case "json":
		var v any
		return json.Unmarshal([]byte(b.text), &v)
	case "yaml":
		var v map[string]any
		return yaml.UnmarshalStrict([]byte(b.text), &v)
	case "ini":
		if !strings.Contains(b.text, "[Service]\n") {
			return fmt.Errorf("no unit of systemd")
		}
	case "toml":
		return b.checkTOML(t)
	default:
		return fmt.Errorf("nobody knows what %q is", b.kind)
	}
	return nil
}

// checkTOML has containerd read what is for containerd: versions of the format are those of containerd
// that read it.
func (b block) checkTOML(t *testing.T) error {
	var v struct{ Version int }
	if err := toml.Unmarshal([]byte(b.text), &v); err != nil {
		return err
	}
	readers := map[int][]string{2: {"/usr/bin/containerd", filepath.Join(built.new, "containerd")}, 3: {filepath.Join(built.new, "containerd")}}
	for _, reader := range readers[v.Version] {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
			return err
		}
		dump, err := output(reader, "--config", path, "config", "dump")
		if err != nil {
			return err
		}
		for line := range strings.Lines(b.text) {
			// Values come back as they are, tables under the name of a newer plugin perhaps.
			if key, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok && key != "version" {
				single := strings.ReplaceAll(value, `"`, "'")
				if !strings.Contains(dump, key+" = "+value) && !strings.Contains(dump, key+" = "+single) {
					return fmt.Errorf("%s has not understood %s", reader, line)
				}
			}
		}
	}
	return nil
}

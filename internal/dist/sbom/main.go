// Command sbom writes what Go programs were built from, as a CycloneDX 1.5 document: the modules that the Go
// tool has noted in each program, and the Go release.
//
//	sbom NAME VERSION PROGRAM... >FILE
//
// The same programs give the same bytes.
package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: sbom NAME VERSION PROGRAM...")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "cannot write a bill of materials:", err)
		os.Exit(1)
	}
}

type document struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

func write(w io.Writer, name, version string, programs []string) error {
	doc := document{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: metadata{component{Type: "application", Name: name, Version: version}}}
	seen := map[string]bool{}
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return err
		}
		parts := []component{{Type: "library", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}}
		for _, m := range info.Deps {
			if m.Replace != nil {
				if strings.HasPrefix(m.Replace.Path, ".") {
					continue // our own code, in our own tree
				}
				m = m.Replace
			}
			c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
			if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
				raw, err := base64.StdEncoding.DecodeString(sum)
				if err != nil {
					return fmt.Errorf("sum of %s: %w", m.Path, err)
				}
				c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
			}
			parts = append(parts, c)
		}
		for _, c := range parts {
			if !seen[c.PURL] {
				seen[c.PURL] = true
				doc.Components = append(doc.Components, c)
			}
		}
	}
	slices.SortFunc(doc.Components, func(a, b component) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	})
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(doc)
}

package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const shimCommand = "holdfast/cmd/containerd-shim-holdfast-v2"

// mayImport says which of our packages each product package may import. A package that is not
// here does not belong in the tree.
var mayImport = map[string][]string{
	"holdfast/internal/reaper":       {},
	"holdfast/internal/facts":        {},
	"holdfast/internal/recorder":     {"holdfast/internal/facts"},
	"holdfast/internal/bundle":       {},
	"holdfast/internal/sha256":       {},
	"holdfast/internal/proc":         {},
	"holdfast/internal/wire":         {},
	"holdfast/internal/api":          {"holdfast/internal/wire"},
	"holdfast/internal/cgroup":       {"holdfast/internal/wire", "holdfast/internal/api/stats1", "holdfast/internal/api/stats2"},
	"holdfast/internal/mount":        {"holdfast/internal/reaper"},
	"holdfast/oom":                   {"holdfast/internal/cgroup"},
	"holdfast/stdio":                 {"holdfast/internal/reaper"},
	"holdfast/runc":                  {"holdfast/internal/reaper", "holdfast/internal/proc", "holdfast/internal/bundle"},
	"holdfast/internal/api/stats1":   {"holdfast/internal/wire"},
	"holdfast/internal/api/stats2":   {"holdfast/internal/wire"},
	"holdfast/internal/api/generate": {},
	"holdfast/internal/dist/sbom":    {},
	"holdfast/internal/tune":         {},
	"holdfast/process": {
		"holdfast/internal/api", "holdfast/internal/wire",
		"holdfast/runc", "holdfast/stdio", "holdfast/oom",
		"holdfast/internal/reaper", "holdfast/internal/cgroup", "holdfast/internal/mount",
		"holdfast/internal/recorder", "holdfast/internal/proc", "holdfast/internal/bundle",
	},
	"holdfast/shim": {
		"holdfast/internal/api", "holdfast/internal/wire",
		"holdfast/process", "holdfast/runc",
		"holdfast/internal/reaper", "holdfast/internal/cgroup", "holdfast/internal/mount",
		"holdfast/internal/recorder", "holdfast/internal/proc", "holdfast/internal/bundle", "holdfast/internal/facts",
		"holdfast/internal/sha256",
	},
	shimCommand:                {"holdfast/shim"},
	"holdfast/internal/client": {"holdfast/internal/facts"},
	"holdfast/internal/node":   {},
	"holdfast/cmd/holdfast":    {"holdfast/internal/client", "holdfast/internal/node", "holdfast/internal/facts", "holdfast/internal/proc"},
}

// notLinked are the packages, and all below them, that would make every shim on a node bigger.
// ttrpc needs a few small packages of the gRPC module; they are not gRPC.
var notLinked = []string{
	"crypto",
	"github.com/containerd/cgroups",
	"github.com/containerd/containerd",
	"github.com/prometheus",
	"github.com/sirupsen",
	"go.opentelemetry.io",
	"google.golang.org/grpc",
	"google.golang.org/protobuf/types/descriptorpb",
	"net/http",
	"regexp",
}

var ofGRPC = []string{
	"google.golang.org/grpc/codes",
	"google.golang.org/grpc/connectivity",
	"google.golang.org/grpc/grpclog",
	"google.golang.org/grpc/grpclog/internal",
	"google.golang.org/grpc/internal",
	"google.golang.org/grpc/internal/status",
	"google.golang.org/grpc/serviceconfig",
	"google.golang.org/grpc/status",
}

// notImported are packages that cost the shim time at every start.
var notImported = []string{"html/template", "text/template"}

// What is linked may not grow without somebody deciding it.
const (
	maxModules  = 9
	maxPackages = 158
)

// A listed package is what `go list -json` says of it.
type listed struct {
	ImportPath   string
	Dir          string
	Doc          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Standard     bool
	Module       *struct{ Path string }
}

// list runs `go list` in the product's module, for the build that is shipped.
func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags", "no_grpc", "-json"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	var all []listed
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// product returns the packages that are not under test/.
func product(t *testing.T) []listed {
	t.Helper()
	return slices.DeleteFunc(list(t, "./..."), func(p listed) bool {
		return ours(p.ImportPath, "test")
	})
}

// ours says whether a package is one of ours in dir or below.
func ours(importPath, dir string) bool { return within(importPath, path.Join("holdfast", dir)) }

// within says whether a package is parent or below it.
func within(importPath, parent string) bool {
	return importPath == parent || strings.HasPrefix(importPath, parent+"/")
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, p := range product(t) {
		allowed, ok := mayImport[p.ImportPath]
		if !ok {
			t.Errorf("%s is not in the table of packages", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if ours(imported, "") && !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s; it may import only %v", p.ImportPath, imported, allowed)
			}
			if slices.Contains(notImported, imported) {
				t.Errorf("%s imports %s, which costs time at every start", p.ImportPath, imported)
			}
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func TestShimLinksOnlyWhatItNeeds(t *testing.T) {
	linked := list(t, "-deps", shimCommand)
	modules := make(map[string]bool)
	for _, p := range linked {
		if p.Module != nil {
			modules[p.Module.Path] = true
		}
		if slices.Contains(ofGRPC, p.ImportPath) {
			continue
		}
		for _, unwanted := range notLinked {
			if within(p.ImportPath, unwanted) {
				t.Errorf("the shim links %s: %s", p.ImportPath, importers(linked, p.ImportPath))
			}
		}
	}
	t.Logf("the shim links %d packages of %d modules", len(linked), len(modules))
	if len(linked) > maxPackages {
		t.Errorf("the shim links %d packages, more than %d", len(linked), maxPackages)
	}
	if len(modules) > maxModules {
		t.Errorf("the shim links %d modules, more than %d", len(modules), maxModules)
	}
}

// importers says who imports a package.
func importers(all []listed, importPath string) string {
	var found []string
	for _, p := range all {
		if slices.Contains(p.Imports, importPath) {
			found = append(found, p.ImportPath)
		}
	}
	return "imported by " + strings.Join(found, ", ")
}

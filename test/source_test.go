package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A limit is how many lines a file and a function may have. What is longer cannot be read in one
// go; a test may be, where it is mostly a table.
type limit struct{ file, function int }

var (
	productLimit = limit{file: 400, function: 60}
	testLimit    = limit{file: 600, function: 100}
)

// spawning are the functions that start a process, or wait for one, behind the reaper's back: it
// would take the exit for itself (docs/decisions/0002).
var spawning = []string{
	"exec.Command", "exec.CommandContext", "os.StartProcess",
	"syscall.ForkExec", "syscall.StartProcess",
}

// starter is the one file outside internal/reaper that may start a process: `start` starts the
// daemon before there is a reaper.
const starter = "shim/bootstrap.go"

// notInShim are the directories to which the rule does not apply: the reaper, and what is not
// part of the shim.
var notInShim = []string{"internal/reaper", "internal/client", "cmd/holdfast"}

// A file is a parsed source file of ours.
type file struct {
	name    string // relative to the root of the tree
	product bool   // neither a test nor under test/
	tokens  *token.FileSet
	tree    *ast.File
}

// files parses every source file of the product's module.
func files(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var all []file
	for _, p := range list(t, "./...") {
		for _, base := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			tokens := token.NewFileSet()
			path := filepath.Join(p.Dir, base)
			tree, err := parser.ParseFile(tokens, path, nil, parser.SkipObjectResolution|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			isProduct := !ours(p.ImportPath, "test") && !strings.HasSuffix(base, "_test.go")
			all = append(all, file{name, isProduct, tokens, tree})
		}
	}
	return all
}

// lines returns how many lines a piece of the file has.
func (f file) lines(n ast.Node) int {
	return f.tokens.Position(n.End()).Line - f.tokens.Position(n.Pos()).Line + 1
}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	for _, f := range files(t) {
		most := testLimit
		if f.product {
			most = productLimit
		}
		if ast.IsGenerated(f.tree) {
			continue
		}
		if n := f.tokens.File(f.tree.Pos()).LineCount(); n > most.file {
			t.Errorf("%s has %d lines, more than %d", f.name, n, most.file)
		}
		for _, declaration := range f.tree.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.lines(function); n > most.function {
				t.Errorf("%s: %s has %d lines, more than %d",
					f.name, function.Name.Name, n, most.function)
			}
			if f.product && function.Name.Name == "init" && function.Recv == nil {
				t.Errorf("%s has an init function: what a package needs it is to be told", f.name)
			}
		}
	}
}

func TestOnlyTheReaperStartsAndWaits(t *testing.T) {
	for _, f := range files(t) {
		if !f.product || f.name == starter || slices.Contains(notInShim, filepath.Dir(f.name)) {
			continue
		}
		for _, spec := range f.tree.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil || imported == "os/exec" {
				t.Errorf("%s imports os/exec", f.name)
			}
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok {
				return true
			}
			called := selector.Sel.Name
			name := pkg.Name + "." + called
			if slices.Contains(spawning, name) || called == "Wait4" || called == "Waitid" {
				t.Errorf("%s uses %s", f.tokens.Position(n.Pos()), name)
			}
			return true
		})
	}
}

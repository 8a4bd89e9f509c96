package test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const reference = "../docs/reference.md"

// ofShim are the directories of what is linked into the shim.
var ofShim = []string{
	"cmd/containerd-shim-holdfast-v2", "internal/bundle", "internal/cgroup", "internal/mount", "internal/proc",
	"internal/reaper", "internal/recorder", "oom", "process", "runc", "shim", "stdio",
}

// A source is every Go file of the tree, whatever its build tags are, by directory.
type source struct {
	tokens    *token.FileSet
	files     map[string][]*ast.File
	constants map[string]ast.Expr // by package and name, as in shim.graceTime; of a map also its values
}

func parseSource(t *testing.T) source {
	t.Helper()
	s := source{token.NewFileSet(), map[string][]*ast.File{}, map[string]ast.Expr{}}
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		tree, err := parser.ParseFile(s.tokens, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		s.files[dir] = append(s.files[dir], tree)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tests := range []bool{false, true} {
		for _, trees := range s.files {
			for _, tree := range trees {
				if s.isTest(tree) == tests {
					s.addConstants(tree)
				}
			}
		}
	}
	return s
}

func (s source) isTest(tree *ast.File) bool {
	return strings.HasSuffix(s.tokens.File(tree.Pos()).Name(), "_test.go")
}

// addConstants enters the constants of a file, also those of functions, and the maps and lists of its
// package with their entries. What has a name of before stays: product files come before tests.
func (s source) addConstants(tree *ast.File) {
	enter := func(name string, value ast.Expr) {
		if _, ok := s.constants[name]; !ok {
			s.constants[name] = value
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		declaration, ok := n.(*ast.GenDecl)
		if !ok {
			return true
		}
		for _, spec := range declaration.Specs {
			spec, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, value := range spec.Values {
				full := tree.Name.Name + "." + spec.Names[i].Name
				table, isTable := value.(*ast.CompositeLit)
				if isTable || declaration.Tok == token.CONST {
					enter(full, value)
				}
				if !isTable {
					continue
				}
				for _, element := range table.Elts {
					if pair, ok := element.(*ast.KeyValueExpr); ok && dotted(pair.Key) != "" {
						enter(full+"."+dotted(pair.Key), pair.Value)
					}
				}
			}
		}
		return true
	})
}

// shim calls visit for each node of the shim's own files, without tests.
func (s source) shim(visit func(pkg string, n ast.Node)) {
	for _, dir := range ofShim {
		for _, tree := range s.files[dir] {
			if s.isTest(tree) {
				continue
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				if n != nil {
					visit(tree.Name.Name, n)
				}
				return true
			})
		}
	}
}

// value returns what an expression in a package is, of those that constants are made of here: literals,
// other constants, units of time, and what is calculated from these. It is nil for anything else.
func (s source) value(pkg string, e ast.Expr) constant.Value {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.Ident:
		if found, ok := s.constants[pkg+"."+e.Name]; ok {
			return s.value(pkg, found)
		}
	case *ast.SelectorExpr:
		from, ok := e.X.(*ast.Ident)
		if !ok {
			return nil
		}
		if unit, ok := unitsOfTime[e.Sel.Name]; ok && from.Name == "time" {
			return constant.MakeInt64(int64(unit))
		}
		if found, ok := s.constants[from.Name+"."+e.Sel.Name]; ok {
			return s.value(from.Name, found)
		}
	case *ast.BinaryExpr:
		x, y := s.value(pkg, e.X), s.value(pkg, e.Y)
		if x == nil || y == nil || x.Kind() != y.Kind() {
			return nil
		}
		switch e.Op {
		case token.SHL:
			if n, ok := constant.Uint64Val(y); ok {
				return constant.Shift(x, e.Op, uint(n))
			}
		case token.ADD, token.SUB, token.MUL:
			return constant.BinaryOp(x, e.Op, y)
		}
	}
	return nil
}

var unitsOfTime = map[string]time.Duration{
	"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute,
}

// text returns the string that an expression is. Of one that only begins with a constant, as an id
// follows, it returns that, and false for whole.
func (s source) text(pkg string, e ast.Expr) (text string, whole bool) {
	if v := s.value(pkg, e); v != nil && v.Kind() == constant.String {
		return constant.StringVal(v), true
	}
	if sum, ok := e.(*ast.BinaryExpr); ok && sum.Op == token.ADD {
		text, _ = s.text(pkg, sum.X)
	}
	return text, false
}

// variable returns the name of the environment variable that a call reads. known is false if it reads
// one whose name cannot be told.
func (s source) variable(pkg string, n ast.Node) (name string, known bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return "", true
	}
	switch dotted(call.Fun) {
	case "os.Getenv", "os.LookupEnv":
		return s.text(pkg, call.Args[0])
	case "lookup": // of package shim
		if len(call.Args) == 2 {
			return s.text(pkg, call.Args[1])
		}
	}
	return "", true
}

// dotted returns an expression as text, if it is a name or a chain of selectors.
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return dotted(e.X) + "." + e.Sel.Name
	}
	return ""
}

// named returns the string constants of the shim whose names have the ending.
func (s source) named(ending string) (texts []string) {
	s.shim(func(pkg string, n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return
		}
		for i, name := range spec.Names {
			if i < len(spec.Values) && strings.HasSuffix(strings.ToLower(name.Name), ending) {
				if text, whole := s.text(pkg, spec.Values[i]); whole {
					texts = append(texts, text)
				}
			}
		}
	})
	return texts
}

// cases returns the strings for which the switches of a function have a case.
func (s source) cases(function string) (texts []string) {
	s.shim(func(pkg string, n ast.Node) {
		f, ok := n.(*ast.FuncDecl)
		if !ok || pkg+"."+f.Name.Name != function {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if clause, ok := n.(*ast.CaseClause); ok {
				for _, e := range clause.List {
					if text, whole := s.text(pkg, e); whole && text != "" {
						texts = append(texts, text)
					}
				}
			}
			return true
		})
	})
	return texts
}

// keys returns the strings that are keys, or elements, of a table of package shim.
func (s source) keys(table string) (texts []string) {
	literal, _ := s.constants[table].(*ast.CompositeLit)
	if literal == nil {
		return nil
	}
	for _, e := range literal.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			e = pair.Key
		}
		if text, whole := s.text("", e); whole {
			texts = append(texts, text)
		}
	}
	return texts
}

// inBundle returns the names of files that are joined to the path of a bundle, and of others, which have
// an id in them, the beginnings and the ends.
func (s source) inBundle() (names, beginnings, ends []string) {
	bundle := regexp.MustCompile(`(^|\.)([bB]undle|dir)$`)
	beginning, end := regexp.MustCompile(`^[a-z]+[.-]$`), regexp.MustCompile(`^[a-z%.-]*\.(json|log|pid|sock|tmp)$`)
	s.shim(func(pkg string, n ast.Node) {
		if !slices.Contains([]string{"bundle", "process", "runc", "shim"}, pkg) {
			return
		}
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if text, _ := s.text(pkg, n.X); n.Op == token.ADD && beginning.MatchString(text) {
				beginnings = append(beginnings, text)
			}
		case *ast.BasicLit:
			if text, _ := s.text(pkg, n); end.MatchString(text) {
				ends = append(ends, strings.ReplaceAll(text, "%d", "NUMBER"))
			}
		case *ast.CallExpr:
			if dotted(n.Fun) != "filepath.Join" || !bundle.MatchString(dotted(n.Args[0])) {
				return
			}
			var name []string
			for _, e := range n.Args[1:] {
				text, whole := s.text(pkg, e)
				if !whole {
					return
				}
				name = append(name, text)
			}
			names = append(names, filepath.Join(name...))
		}
	})
	return names, beginnings, ends
}

// options returns the fields of the runtime's options.
func (s source) options() (fields []string) {
	for _, tree := range s.files["internal/api"] {
		ast.Inspect(tree, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != "Options" {
				return true
			}
			for _, f := range spec.Type.(*ast.StructType).Fields.List {
				fields = append(fields, f.Names[0].Name)
			}
			return false
		})
	}
	return fields
}

// signals returns the signals that the daemon catches.
func (s source) signals() (names []string) {
	s.shim(func(_ string, n ast.Node) {
		if call, ok := n.(*ast.CallExpr); ok && dotted(call.Fun) == "signal.Notify" {
			for _, e := range call.Args[1:] {
				if name, ok := strings.CutPrefix(dotted(e), "unix."); ok {
					names = append(names, name)
				}
			}
		}
	})
	return names
}

func readDocument(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReferenceIsComplete holds docs/reference.md to name whatever the shim can be told, and makes.
func TestReferenceIsComplete(t *testing.T) {
	s, page := parseSource(t), readDocument(t, reference)
	// needs reports names that are missing; atLeast tells that the source was searched in vain.
	needs := func(what, before string, atLeast int, names []string, after string) {
		t.Helper()
		slices.Sort(names)
		names = slices.Compact(names)
		if len(names) < atLeast {
			t.Errorf("only %d of at least %d found in the source: %s %q", len(names), atLeast, what, names)
		}
		for _, name := range names {
			if !regexp.MustCompile("`" + before + regexp.QuoteMeta(name) + after).MatchString(page) {
				t.Errorf("%s does not name the %s %s", reference, what, name)
			}
		}
	}
	variables := s.named("variable")
	s.shim(func(pkg string, n ast.Node) {
		name, known := s.variable(pkg, n)
		if !known {
			t.Errorf("%s reads a variable whose name cannot be told: use a constant", s.tokens.Position(n.Pos()))
		} else if name != "" {
			variables = append(variables, name)
		}
	})
	needs("variable", "", 11, variables, "`")
	needs("variable that is passed on", "", 13, s.keys("shim.passedVariables"), "`")
	needs("beginning of variables that are passed on", "", 2, s.keys("shim.passedPrefixes"), "`")
	needs("annotation", "", 4, s.named("annotation"), "`")
	files := slices.DeleteFunc(s.named("file"), filepath.IsAbs) // the kernel's are no files of a bundle
	joined, beginnings, ends := s.inBundle()
	needs("file in the bundle", "", 12, slices.Concat(files, joined), "`")
	needs("file in the bundle that begins with", "", 3, beginnings, `(ID\.|[a-z]+\.log)`)
	needs("file in the bundle that ends in", "[^`]*", 10, ends, "`")
	needs("flag", "-", 9, slices.Concat(s.cases("shim.text"), s.cases("shim.toggle")), "[ `]")
	needs("action", "", 3, s.cases("shim.actionNamed"), "`")
	needs("signal", "", 6, s.signals(), "`")
	needs("option", "", 12, s.options(), "`")
}

// TestReferenceTellsLimits compares the table of limits with the constants that it names.
func TestReferenceTellsLimits(t *testing.T) {
	s := parseSource(t)
	units := map[string]constant.Value{
		"": constant.MakeInt64(1), "KiB": constant.MakeInt64(1 << 10), "MiB": constant.MakeInt64(1 << 20),
		"ms": constant.MakeInt64(int64(time.Millisecond)), "s": constant.MakeInt64(int64(time.Second)),
		"min": constant.MakeInt64(int64(time.Minute)),
	}
	row := regexp.MustCompile("(?m)^\\|[^|]*\\| `([a-z]+)\\.([A-Za-z.]+)` \\| ([0-9.]+) ?([A-Za-z]*) \\|$")
	rows := row.FindAllStringSubmatch(readDocument(t, reference), -1)
	if len(rows) < 40 {
		t.Errorf("the table of limits has %d rows that can be read", len(rows))
	}
	for _, r := range rows {
		pkg, name := r[1], r[2]
		told := constant.MakeFromLiteral(r[3], token.FLOAT, 0)
		if unit := units[r[4]]; unit == nil {
			t.Errorf("%s.%s: unknown unit %q", pkg, name, r[4])
			continue
		} else if told = constant.BinaryOp(told, token.MUL, unit); told.Kind() == constant.Unknown {
			t.Errorf("%s.%s: %q is no number", pkg, name, r[3])
			continue
		}
		found, ok := s.constants[pkg+"."+name]
		is := s.value(pkg, found)
		if !ok || is == nil {
			t.Errorf("there is no constant %s.%s", pkg, name)
		} else if !constant.Compare(told, token.EQL, is) {
			t.Errorf("%s.%s is %s, not %s %s", pkg, name, is, r[3], r[4])
		}
	}
}

// TestDocumentsNameWhatIsThere looks for each variable and annotation of ours that a document names.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	s := parseSource(t)
	there := map[string]bool{}
	for _, annotation := range s.named("annotation") {
		there[annotation] = true
	}
	for _, trees := range s.files {
		for _, tree := range trees {
			ast.Inspect(tree, func(n ast.Node) bool {
				if name, known := s.variable(tree.Name.Name, n); known {
					there[name] = true
				}
				return true
			})
		}
	}
	for _, name := range s.named("variable") {
		there[name] = true
	}
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("../docs/man/*.md")
	if err != nil || len(documents) < 5 || len(pages) < 2 {
		t.Fatalf("found %d documents and %d pages: %v", len(documents), len(pages), err)
	}
	ours := regexp.MustCompile(`\bHOLDFAST_[A-Z_]*[A-Z]|\bio\.holdfast(\.[a-z-]+)+`)
	found := 0
	for _, document := range slices.Concat(documents, pages) {
		for _, name := range ours.FindAllString(readDocument(t, document), -1) {
			found++
			if !there[name] {
				t.Errorf("%s names %s, which nothing reads", document, name)
			}
		}
	}
	if found < 10 {
		t.Errorf("the documents name %d variables and annotations of ours", found)
	}
}

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -json ./... | report SKIPS")
		os.Exit(2)
	}
	list, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	ok, err := report(os.Stdin, os.Stdout, permitted(string(list)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// permitted returns the tests that may be skipped.
func permitted(list string) map[string]bool {
	tests := make(map[string]bool)
	for line := range strings.Lines(list) {
		if field := strings.Fields(line); len(field) > 0 && !strings.HasPrefix(field[0], "#") {
			tests[field[0]] = true
		}
	}
	return tests
}

// An event is a line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
}

// report copies what matters from the events in r to w. It says whether all went well.
func report(r io.Reader, w io.Writer, permitted map[string]bool) (bool, error) {
	ok, packages := true, 0
	output := make(map[string]*strings.Builder) // of each test until it ends, by package and name
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			// Nothing at all means that go test did not run; it must not look like success.
			return ok && packages > 0, nil
		}
		if err != nil {
			return false, err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			fmt.Fprintf(w, "%s", line) // not an event: a message of go's own
			continue
		}
		name := e.Package + "." + e.Test
		switch e.Action {
		case "output":
			record(w, output, e, name)
		case "build-output":
			fmt.Fprint(w, e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				packages++
			}
			ok = finish(w, output[name], e, permitted[name]) && ok
			delete(output, name)
			if e.Test == "" {
				tellUnended(w, output, e.Package)
			}
		}
	}
}

// tellUnended prints what tests said that were under way when their package ended: it took too long, or broke down.
func tellUnended(w io.Writer, output map[string]*strings.Builder, pkg string) {
	for _, name := range slices.Sorted(maps.Keys(output)) {
		if test, ok := strings.CutPrefix(name, pkg+"."); ok && test != "" {
			fmt.Fprintf(w, "--- FAIL: %s did not end:\n%s", name, output[name])
			delete(output, name)
		}
	}
}

// record keeps a test's output until it is known how the test ends. A package's own is printed, but
// for its seed, which matters only if a test fails.
func record(w io.Writer, output map[string]*strings.Builder, e event, name string) {
	if e.Test == "" && !strings.HasPrefix(e.Output, "-test.shuffle ") {
		if e.Output != "PASS\n" {
			fmt.Fprint(w, e.Output)
		}
		return
	}
	if output[name] == nil {
		output[name] = &strings.Builder{}
	}
	output[name].WriteString(e.Output)
}

// finish prints what is to be said about a test or package that has ended, and says whether it
// ended well.
func finish(w io.Writer, output *strings.Builder, e event, permitted bool) bool {
	text := ""
	if output != nil {
		text = output.String()
	}
	switch {
	case e.Action == "pass":
		// A goroutine that an earlier test has left may fail the package while this one runs.
		if strings.Contains(text, "WARNING: DATA RACE") {
			fmt.Fprint(w, text)
		}
		return true
	case e.Action == "fail":
		fmt.Fprint(w, text)
		return false
	case e.Test == "": // a package without tests
		return true
	case permitted:
		fmt.Fprintf(w, "--- SKIP: %s.%s: %s\n", e.Package, e.Test, reason(text))
		return true
	default:
		fmt.Fprintf(w, "--- FAIL: %s.%s was skipped, and test/skips does not permit it: %s\n",
			e.Package, e.Test, reason(text))
		return false
	}
}

// reason returns what a skipped test gave as its reason.
func reason(output string) string {
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "    ") && !strings.HasPrefix(strings.TrimSpace(line), "--- ") {
			return strings.TrimSpace(line)
		}
	}
	return "no reason given"
}

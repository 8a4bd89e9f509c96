package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	const start = `{"Action":"start","Package":"p"}` + "\n"
	const passes = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	const seed = `{"Action":"output","Package":"p","Output":"-test.shuffle 42\n"}` + "\n"
	const fails = `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: got 1\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
	const skips = `{"Action":"output","Package":"p","Test":"TestA/b","Output":"=== RUN   TestA/b\n"}
{"Action":"output","Package":"p","Test":"TestA/b","Output":"    a_test.go:1: no CRIU here\n"}
{"Action":"output","Package":"p","Test":"TestA/b","Output":"    --- SKIP: TestA/b (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA/b"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	const empty = `{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}
{"Action":"skip","Package":"q"}
`
	const broken = `{"ImportPath":"p","Action":"build-output","Output":"a.go:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p"}
`
	const hangs = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: test timed out after 1s\n"}
{"Action":"output","Package":"pq","Test":"TestA","Output":"of another package\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t1.0s\n"}
{"Action":"fail","Package":"p"}
`
	const races = `{"Action":"output","Package":"p","Test":"TestA","Output":"WARNING: DATA RACE\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
	tests := []struct {
		name, in, skips, out string
		ok                   bool
	}{
		{"pass", start + passes, "", "ok  \tp\t0.1s\n", true},
		{"fail", start + fails, "", "    a_test.go:1: got 1\nFAIL\tp\t0.1s\n", false},
		{"pass in random order", seed + passes, "", "ok  \tp\t0.1s\n", true},
		{"fail in random order", seed + fails, "",
			"    a_test.go:1: got 1\nFAIL\tp\t0.1s\n-test.shuffle 42\n", false},
		{"fail, then pass", fails + passes, "",
			"    a_test.go:1: got 1\nFAIL\tp\t0.1s\nok  \tp\t0.1s\n", false},
		{"permitted skip", start + skips, "# why\n\np.TestA/b  needs CRIU\n",
			"--- SKIP: p.TestA/b: a_test.go:1: no CRIU here\nok  \tp\t0.1s\n", true},
		{"other skip", start + skips, "p.TestB\n",
			"--- FAIL: p.TestA/b was skipped, and test/skips does not permit it: " +
				"a_test.go:1: no CRIU here\nok  \tp\t0.1s\n", false},
		{"no test files", empty, "", "?   \tq\t[no test files]\n", true},
		{"does not build", broken, "", "a.go:1: syntax error\n", false},
		{"does not end", start + hangs, "",
			"FAIL\tp\t1.0s\n--- FAIL: p.TestA did not end:\n=== RUN   TestA\npanic: test timed out after 1s\n", false},
		{"a race of a test that passes", start + races, "", "WARNING: DATA RACE\nFAIL\tp\t0.1s\n", false},
		{"a message of go", "go: cannot find main module\n", "", "go: cannot find main module\n", false},
		{"nothing", "", "", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := report(strings.NewReader(test.in), &out, permitted(test.skips))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.out, out.String()); diff != "" {
				t.Error(diff)
			}
			if ok != test.ok {
				t.Errorf("ok: got %v, want %v", ok, test.ok)
			}
		})
	}
}

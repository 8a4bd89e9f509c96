package shim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFlagsAreReadAsGoWould(t *testing.T) {
	for _, c := range []struct {
		args string // separated by single blanks; two in a row make an empty argument
		want flags
	}{
		{"", flags{}},
		{"-namespace k8s.io -address /a.sock -publish-binary /c -id x start", flags{
			namespace: "k8s.io", address: "/a.sock", publish: "/c", id: "x", action: "start",
		}},
		{"--namespace=n --id=x -debug delete", flags{namespace: "n", id: "x", debug: true, action: "delete"}},
		{"-debug=false -bundle /b delete", flags{bundle: "/b", action: "delete"}},
		{"-address  -id x start", flags{id: "x", action: "start"}}, // CRI-O: an empty address
		{"-id x -- start -debug", flags{id: "x", action: "start"}},
		{"start -debug", flags{action: "start"}},
		{"-v", flags{version: true}},
		{"--version", flags{version: true}},
		{"-info", flags{info: true}},
		{"features", flags{action: "features"}},
		{"-id", flags{}},
		{"-socket /s -id x", flags{socket: "/s", id: "x"}},
		{"-new start", flags{unknown: []string{"new"}, action: "start"}},
		{"-new value start", flags{unknown: []string{"new"}, action: "start"}},
		{"-new=value -id x start", flags{unknown: []string{"new"}, id: "x", action: "start"}},
		{"-new -debug start", flags{unknown: []string{"new"}, debug: true, action: "start"}},
		{"- start", flags{action: "-"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			var args []string
			if c.args != "" {
				args = strings.Split(c.args, " ")
			}
			got, err := parseFlags(args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.want, got, cmp.AllowUnexported(flags{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFlagThatIsNoBoolIsRefused(t *testing.T) {
	if _, err := parseFlags([]string{"-debug=maybe", "start"}); err == nil || !strings.Contains(err.Error(), "maybe") {
		t.Errorf("error is %v", err)
	}
}

// TestCommandLineErrorsAreOneLine runs Main in this process, where it fails before it does anything.
func TestCommandLineErrorsAreOneLine(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"start", "shim: cannot run without -namespace"},
		{"-namespace n start", "shim: cannot run without -id"},
		{"-namespace n -id .. start", `shim: cannot use -id ".."`},
		{"-namespace n/m -id x delete", `shim: cannot use -namespace "n/m"`},
		{"-namespace n -id x dance", `shim: cannot do "dance"`},
		{"-namespace n -id x", "shim: cannot run as a daemon"},
		{"-debug=x start", "shim: cannot read the command line"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var stdout, stderr strings.Builder
			args := append([]string{"/usr/bin/shim"}, strings.Fields(c.args)...)
			if code := Main(args, nil, strings.NewReader(""), &stdout, &stderr); code != 1 {
				t.Errorf("exit status is %d, want 1", code)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout has %q", stdout.String())
			}
			if text := stderr.String(); !strings.HasPrefix(text, c.want) || strings.Index(text, "\n") != len(text)-1 {
				t.Errorf("stderr has %q, want one line that begins with %q", text, c.want)
			}
		})
	}
}

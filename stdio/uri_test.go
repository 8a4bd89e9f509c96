package stdio

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]target{
		"":                        {},
		"/run/a b%20c?d#e":        {scheme: schemePath, path: "/run/a b%20c?d#e"},
		"//x":                     {scheme: schemePath, path: "//x"},
		"fifo:///run/a%20b":       {scheme: schemePath, path: "/run/a b"},
		"file:///var/log/a.log":   {scheme: schemeFile, path: "/var/log/a.log"},
		"FILE:///a":               {scheme: schemeFile, path: "/a"},
		"file:///a?max-size=10Mi": {scheme: schemeFile, path: "/a", rotate: rotation{10 << 20, 5}},
		"file:///a?max-files=1&max-size=4096": {
			scheme: schemeFile, path: "/a", rotate: rotation{4096, 1},
		},
		"binary:///bin/log":         {scheme: schemeBinary, path: "/bin/log"},
		"binary:///l?z=1&a=2&z=3&x": {scheme: schemeBinary, path: "/l", args: []string{"z", "1", "a", "2", "x", ""}},
		"binary-v2:///l?a%26b=%20+c&&d=e=f;g": {
			scheme: schemeBinaryV2, path: "/l", args: []string{"a&b", "  c", "d", "e=f;g"},
		},
		"binary:///n?_NERDCTL_INTERNAL_LOGGING=/var/lib/nerdctl/1935db59": {
			scheme: schemeBinary, path: "/n", args: []string{"_NERDCTL_INTERNAL_LOGGING", "/var/lib/nerdctl/1935db59"},
		},
	} {
		got, err := parse("stdout", in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{}, rotation{})); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, because := range map[string]string{
		"relative/path":                       "neither an absolute path nor a URI",
		"ttrpc+unix:///s?streaming_id=secret": `unknown STDIO scheme "ttrpc+unix"`,
		"://x":                                `unknown STDIO scheme ""`,
		"file://tmp/x":                        "three slashes",
		"file://":                             "three slashes",
		"binary://user@/secret":               "three slashes",
		"binary:///l?a=%zz":                   "malformed query",
		"fifo:///%zzsecret":                   "malformed fifo URI",
		"/a\x00b":                             "NUL",
		"file:///a?max-size=10M":              "max-size is no size",
		"file:///a?max-size=4095":             "from 4Ki on",
		"file:///a?max-size=-1Gi":             "from 4Ki on",
		"file:///a?max-size=":                 "max-size is no size",
		"file:///a?max-files=3":               "without max-size",
		"file:///a?max-size=1Mi&max-files=0":  "no number from 1",
		"file:///a?max-size=1Mi&max-files=x":  "no number from 1",
		"file:///a?max-size=1Mi&max-size=2Mi": "2 times",
		"file:///a?secret=1":                  "unknown parameter",
		"file:///a?%zz":                       "malformed query",
		"binary:///l?a=%00":                   "NUL",
	} {
		_, err := parse("stdout", in)
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), because) {
			t.Errorf("%q: %v; want %s", in, err, because)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the secret: %v", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "/a", "fifo:///a", "file:///a%20b", "file:///a?max-size=1Gi&max-files=7", "binary:///l?a=b&a=c", "binary-v2:///l?x", "x://", "file://h/p", "a:b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parse("stdout", s)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("the kind is missing: %v", err)
			}
			return
		}
		if (s == "") != (got.scheme == schemeNull) || (s == "") != (got.path == "") {
			t.Errorf("%q became %+v", s, got)
		}
		if s != "" && !strings.HasPrefix(got.path, "/") {
			t.Errorf("%q: the path %q is not absolute", s, got.path)
		}
		if !got.logger() && got.args != nil || len(got.args)%2 != 0 {
			t.Errorf("%q: odd arguments %q", s, got.args)
		}
		if r := got.rotate; got.scheme != schemeFile && r != (rotation{}) || (r.size == 0) != (r.files == 0) || r.size < 0 {
			t.Errorf("%q: odd limits %+v", s, r)
		}
		if strings.HasPrefix(s, "/") && got.path != s {
			t.Errorf("the path %q became %q", s, got.path)
		}
		if strings.Contains(got.path+strings.Join(got.args, ""), "\x00") {
			t.Errorf("%q lets a NUL byte through", s)
		}
	})
}

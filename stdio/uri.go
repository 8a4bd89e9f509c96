package stdio

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// scheme says what a stream's string in the request names.
type scheme int

const (
	schemeNull     scheme = iota // "": /dev/null
	schemePath                   // "/path", "fifo://": a FIFO or another file; it exists
	schemeFile                   // "file://": a log file, made if need be
	schemeBinary                 // "binary://": a logger; closing descriptor 5 means ready
	schemeBinaryV2               // "binary-v2://": a logger; a byte on descriptor 5 means ready
)

// target is a parsed stream string.
type target struct {
	scheme scheme
	path   string   // absolute; empty for schemeNull
	args   []string // a logger's argv[1:]
	rotate rotation // of a log file
}

// logger tells whether t names a logging process.
func (t target) logger() bool {
	return t.scheme == schemeBinary || t.scheme == schemeBinaryV2
}

// same tells whether t and u name the same thing, so that it is opened once for both.
func (t target) same(u target) bool {
	return t.scheme == u.scheme && t.path == u.path && slices.Equal(t.args, u.args) && t.rotate == u.rotate
}

// parse reads the string of the stream called name. Whatever begins with a slash is a path and
// is taken as it stands; everything else has to be a URI with an absolute, percent-encoded
// path. The errors are errdefs.ErrInvalidArgument and show neither path nor query, which may
// hold secrets.
func parse(name, s string) (target, error) {
	if s == "" {
		return target{}, nil
	}
	if strings.HasPrefix(s, "/") {
		return checked(name, target{scheme: schemePath, path: s})
	}
	word, _, isURI := strings.Cut(s, "://")
	if !isURI {
		return target{}, invalid(name, "neither an absolute path nor a URI; use an absolute path")
	}
	t := target{}
	switch strings.ToLower(word) {
	case "fifo":
		t.scheme = schemePath
	case "file":
		t.scheme = schemeFile
	case "binary":
		t.scheme = schemeBinary
	case "binary-v2":
		t.scheme = schemeBinaryV2
	default:
		return target{}, invalid(name, fmt.Sprintf(
			"unknown STDIO scheme %q; use a FIFO's path, file://, binary:// or binary-v2://", word))
	}
	u, err := url.Parse(s)
	if err != nil {
		return target{}, invalid(name, "malformed "+word+" URI")
	}
	if u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") {
		return target{}, invalid(name, "no absolute path in the "+word+" URI; write three slashes")
	}
	t.path = u.Path
	if t.logger() {
		if t.args, err = arguments(u.RawQuery); err != nil {
			return target{}, invalid(name, "malformed query in the "+word+" URI")
		}
	}
	if t.scheme == schemeFile {
		if t.rotate, err = parseRotation(u.RawQuery); err != nil {
			return target{}, fmt.Errorf("cannot use %s: %w", name, err)
		}
	}
	return checked(name, t)
}

const (
	defaultFiles = 5
	mostFiles    = 1000
	// smallestLog keeps a log from being rotated with each line.
	smallestLog = 4 << 10
)

// parseRotation reads the query of a file:// URI: max-size and max-files. Each may be there once, and
// nothing else: a name that is spelled wrong would let the log grow without end.
func parseRotation(query string) (r rotation, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return r, fmt.Errorf("malformed query in the file URI: %w", errdefs.ErrInvalidArgument)
	}
	for key, all := range values {
		switch {
		case len(all) > 1:
			return r, fmt.Errorf("a parameter is there %d times; once will do: %w", len(all), errdefs.ErrInvalidArgument)
		case key == "max-size":
			if r.size, err = ParseSize(all[0]); err != nil || r.size < smallestLog {
				return r, fmt.Errorf("max-size is no size; write bytes, or a number with Ki, Mi or Gi, from 4Ki on: %w",
					errdefs.ErrInvalidArgument)
			}
		case key == "max-files":
			if r.files, err = strconv.Atoi(all[0]); err != nil || r.files < 1 || r.files > mostFiles {
				return r, fmt.Errorf("max-files is no number from 1 to %d: %w", mostFiles, errdefs.ErrInvalidArgument)
			}
		default:
			return r, fmt.Errorf("unknown parameter of a file URI; there are max-size and max-files: %w",
				errdefs.ErrInvalidArgument)
		}
	}
	if r.files > 0 && r.size == 0 {
		return r, fmt.Errorf("max-files without max-size; give both: %w", errdefs.ErrInvalidArgument)
	}
	if r.size > 0 && r.files == 0 {
		r.files = defaultFiles
	}
	return r, nil
}

// arguments turns a query into argv[1:]: each key followed by its first value, in the order of
// the text (contract 7.6). A key without a value is followed by an empty word.
func arguments(query string) ([]string, error) {
	var args []string
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil {
			return nil, err
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return nil, err
		}
		if !seen[key] {
			seen[key] = true
			args = append(args, key, value)
		}
	}
	return args, nil
}

// checked refuses what no system call could pass on.
func checked(name string, t target) (target, error) {
	for _, word := range append([]string{t.path}, t.args...) {
		if strings.ContainsRune(word, 0) {
			return target{}, invalid(name, "it contains a NUL byte")
		}
	}
	return t, nil
}

func invalid(name, because string) error {
	return fmt.Errorf("cannot use %s: %s: %w", name, because, errdefs.ErrInvalidArgument)
}

package test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// typed is a command of README.md: what it has to print, as a pattern, or why it is not run here.
type typed struct{ command, prints, notRun string }

// readme are the commands of README.md. Those that are run come in the order in which they need each other.
var readme = []typed{
	{command: "make", prints: `(?m)^run +run a container`},
	{command: "make install", prints: `installed .*/usr/local/bin/holdfast\n`},
	{command: "make run", prints: `Hello from a container of its own(.|\n)*\nexit status 7\n(.|\n)*/tasks/exit .* 7\n`},
	// Its status depends on the machine; that the shim is found does not.
	{command: "holdfast doctor", prints: `^STATUS +CHECK.*\n(.*\n)*ok +shim `},
	{command: "holdfast ls", prints: `^NAMESPACE +GROUP.*\n(.*\n)*default +ID +ID +running `},
	// Nobody takes events once run -d has ended, which may be before the last one.
	{command: "holdfast why ID", prints: `^(nothing: its first process is running|[0-9]+ events wait for the manager)`},

	{command: `make run ARGS="-t"`, notRun: "needs a terminal: cmd/holdfast/terminal_test.go has one"},
	{command: `make run ARGS="-t BUNDLE"`, notRun: "the same"},
	{command: "make run WITH=containerd", notRun: "installs containerd where there is none; test/e2e does as much"},
	{command: "make test", notRun: "is what this is a part of"},
	{command: "make soak", notRun: "takes minutes; test/soak runs with all tests, for less long"},
	{command: "ctr run --rm --runtime io.containerd.holdfast.v2 IMAGE ID", notRun: "needs a containerd and an image; test/e2e has both"},
}

// commandsOf returns the commands of a text: indented lines without their comments, and what stands in
// backquotes and begins like one.
func commandsOf(text string) (commands []string) {
	for line := range strings.Lines(text) {
		if indented, ok := strings.CutPrefix(line, "    "); ok {
			command, _, _ := strings.Cut(indented, "#")
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	for _, found := range regexp.MustCompile("`(make|(?:make|holdfast|ctr|go) [^`]+)`").FindAllStringSubmatch(text, -1) {
		commands = append(commands, found[1])
	}
	return slices.DeleteFunc(commands, func(command string) bool { return command == "" })
}

// TestReadmeWorksWhenTyped types the commands of README.md, as far as they leave the machine as it is: what is
// built and installed goes into a directory of the test.
func TestReadmeWorksWhenTyped(t *testing.T) {
	commands := commandsOf(readDocument(t, "../README.md"))
	for _, command := range commands {
		if !slices.ContainsFunc(readme, func(c typed) bool { return c.command == command }) {
			t.Errorf("README.md has %q, which is neither run nor has a reason", command)
		}
	}
	for _, c := range readme {
		if !slices.Contains(commands, c.command) {
			t.Errorf("README.md does not have %q any more", c.command)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc, which make run would install")
	}
	r := newReader(t)
	for _, c := range readme {
		if c.notRun != "" {
			continue
		}
		if strings.HasPrefix(c.command, "holdfast") {
			r.begin(t)
		}
		t.Run(c.command, func(t *testing.T) {
			out, err := r.sh(t, strings.ReplaceAll(c.command, "ID", cmp.Or(r.id, "ID")))
			var exit *exec.ExitError
			if err != nil && (c.command != "holdfast doctor" || !errors.As(err, &exit) || exit.ExitCode() != 1) {
				t.Errorf("it fails: %v\n%s", err, out)
			}
			if !regexp.MustCompile(strings.ReplaceAll(c.prints, "ID", cmp.Or(r.id, "ID"))).MatchString(out) {
				t.Errorf("it does not print %s, but\n%s", c.prints, out)
			}
		})
	}
}

// A reader types into a shell.
type reader struct {
	env []string
	id  string // of a container that runs; empty until begin
}

func newReader(t *testing.T) *reader {
	t.Helper()
	root := t.TempDir()
	tmp, err := os.MkdirTemp("", "rd") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(tmp); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	return &reader{env: append(os.Environ(), "TMPDIR="+tmp,
		"MAKEFLAGS=BIN="+filepath.Join(root, "bin")+" DESTDIR="+filepath.Join(root, "root"),
		"PATH="+filepath.Join(root, "root/usr/local/bin")+":"+os.Getenv("PATH"),
	)}
}

// sh returns what a command prints, on both streams.
func (r *reader) sh(t *testing.T, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env = "..", r.env
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// begin has a container run until the end of the test, if there is none yet.
func (r *reader) begin(t *testing.T) {
	t.Helper()
	if r.id != "" {
		return
	}
	id := "readme-" + strings.ToLower(rand.Text())
	if out, err := r.sh(t, "holdfast run -d --id "+id); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.id = id
	t.Cleanup(func() {
		for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
			if out, err := r.sh(t, "holdfast "+verb+" "+id); err != nil {
				t.Errorf("holdfast %s: %v\n%s", verb, err, out)
			}
		}
	})
}

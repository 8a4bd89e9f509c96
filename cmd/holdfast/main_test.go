package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	flag "github.com/spf13/pflag"
)

// programs is where TestMain has built holdfast and the shim.
var programs string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Println("cannot build the programs under test:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "hfcmd-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-tags", "no_grpc", "-o", dir+"/", "holdfast/cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	programs = dir
	return m.Run(), nil
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// allVerbs are those of every group.
func allVerbs() (all []verb) {
	for _, g := range groups {
		all = append(all, g.verbs...)
	}
	return all
}

func TestVerbsExplainThemselves(t *testing.T) {
	var all, errs bytes.Buffer
	if status := execute(t.Context(), []string{"-h"}, &all, &errs); status != 0 || errs.Len() != 0 {
		t.Errorf("holdfast -h: status %d, %s", status, &errs)
	}
	for _, v := range allVerbs() {
		if !strings.Contains(all.String(), v.help) {
			t.Errorf("%s is not in the overview", v.name)
		}
		for _, h := range []string{"-h", "--help"} {
			var out bytes.Buffer
			status := execute(t.Context(), []string{v.name, h}, &out, &errs)
			if status != 0 || errs.Len() != 0 || !strings.Contains(out.String(), "holdfast "+v.name) ||
				!strings.Contains(out.String(), v.help) || !strings.Contains(out.String(), "Flags:") {
				t.Errorf("holdfast %s %s: status %d, %s%s", v.name, h, status, &out, &errs)
			}
		}
	}
}

func TestWrongUseIsExplained(t *testing.T) {
	rows := []struct {
		args   string
		status int
		want   string // on standard error
	}{
		{"", exitUsage, "holdfast: a verb is missing; holdfast -h explains"},
		{"dance", exitUsage, `no verb "dance"`},
		{"run a b", exitFailed, `cannot run "b": because the bundle a says what runs in it`},
		{"create a -t", exitUsage, "cannot tell whose flag -t is: because it stands behind the bundle"},
		{"run --rootfs /", exitFailed, "because no command is given"},
		{"run --nonsense", exitFailed, "--nonsense; holdfast run -h"},
		{"exec --nonsense", exitFailed, "--nonsense; holdfast exec -h"},
		{"attach", exitFailed, "0 arguments: want ID"},
		{"state", exitUsage, "0 arguments: want ID"},
		{"state ''", exitUsage, "because its id is empty"},
		{"run ''", exitFailed, "because the first argument is empty"},
		{"exec '' true", exitFailed, "because its id is empty"},
		{"exec --exec a/b c1 true", exitFailed, `cannot use "a/b" as an id`},
		{"state --exec -x c1", exitUsage, `cannot use "-x" as an id`},
		{"delete --exec .. c1", exitUsage, `cannot use ".." as an id`},
		{"stats --interval 0", exitUsage, "it is not above 0"},
		{"top --interval -1s c1", exitUsage, "it is not above 0"},
		{"top --interval x c1", exitUsage, "invalid duration"},
		{"help dance", exitUsage, `no verb "dance"`},
		{"completion tcsh", exitUsage, `"tcsh": because only bash`},
		{"completion", exitUsage, `because only bash`},
		{"state no-such-container", exitFailed, "none that runs here has a bundle of that name"},
		{"connect", exitUsage, "neither a container nor --address is given"},
		{"state c1 --address unix:///nonexistent/s", exitFailed, "no such file"},
		{"run --id ../x", exitFailed, `"../x" as an id`},
		{"run --shim /nonexistent/shim", exitFailed, "/nonexistent/shim"},
		{"run /nonexistent/bundle", exitFailed, "/nonexistent/bundle as a bundle: because it has no config.json"},
	}
	t.Setenv("PATH", programs+":"+os.Getenv("PATH"))
	for _, row := range rows {
		if strings.HasPrefix(row.args, "run") && row.status == exitFailed {
			needRoot(t)
		}
		var out, errs bytes.Buffer
		args := strings.Fields(row.args)
		for i := range args {
			args[i] = strings.Trim(args[i], "'")
		}
		status := execute(t.Context(), args, &out, &errs)
		if status != row.status || !strings.Contains(errs.String(), row.want) || out.Len() != 0 {
			t.Errorf("holdfast %s: status %d, want %d; %q is not in %q; output %q",
				row.args, status, row.status, row.want, &errs, &out)
		}
	}
}

// TestLostOutputIsTold has every verb that needs no container write to a device that is full.
func TestLostOutputIsTold(t *testing.T) {
	rows := []string{
		"-h", "help", "help ls", "version", "--version", "completion bash", "completion zsh", "completion fish",
		"ls", "ls --json", "stats", "metrics", "gc", "gc --json", "doctor", "doctor --json",
	}
	for _, v := range allVerbs() {
		rows = append(rows, v.name+" -h")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, row := range rows {
		var errs bytes.Buffer
		cmd := exec.CommandContext(deadline(t, time.Minute), filepath.Join(programs, "holdfast"), strings.Fields(row)...)
		cmd.Stdout, cmd.Stderr = full, &errs
		_ = cmd.Run() // its state tells
		const want = "cannot write all output: because write /dev/stdout: no space left on device\n"
		if status := cmd.ProcessState.ExitCode(); status != exitFailed || !strings.HasSuffix(errs.String(), want) {
			t.Errorf("holdfast %s >/dev/full: status %d, %q", row, status, &errs)
		}
	}
}

// Each example is one of a verb that exists, with flags that it has.
func TestExamplesCanBeTyped(t *testing.T) {
	root := newRoot(io.Discard, io.Discard)
	for name, text := range examples {
		for line := range strings.Lines(text) {
			command, _, _ := strings.Cut(strings.TrimSpace(line), "   ") // then what it does
			command, _, _ = strings.Cut(command, " | ")
			command, _, _ = strings.Cut(command, " && ")
			command, _, _ = strings.Cut(command, " || ")
			command, _, _ = strings.Cut(command, " >")
			words := strings.Fields(command)
			if len(words) < 2 || words[0] != "holdfast" || words[1] != name {
				t.Errorf("an example of %s is %q", name, line)
				continue
			}
			c, args, err := root.Find(words[1:])
			if err == nil {
				err = c.ParseFlags(args)
			}
			if err == nil {
				err = c.ValidateArgs(c.Flags().Args())
			}
			if err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	var out bytes.Buffer
	if status := execute(t.Context(), []string{"version"}, &out, &out); status != 0 || out.String() != "holdfast unknown\n" {
		t.Errorf("status %d, output %q", status, &out)
	}
}

func TestFlagsStandAnywhere(t *testing.T) {
	rows := []struct {
		v    verb
		args string
		want []string
		x    bool
		bad  bool
	}{
		{verb{min: 1, max: 1}, "-x id", []string{"id"}, true, false},
		{verb{min: 1, max: 1}, "id --ex", []string{"id"}, true, false},
		{verb{min: 1, max: 1}, "id", []string{"id"}, false, false},
		{verb{min: 1, max: 1}, "", nil, false, true},
		{verb{min: 1, max: 1}, "a b", nil, false, true},
		{verb{min: 0, max: 1}, "", nil, false, false},
		{verb{min: 1, open: true}, "-x id sh -x -c y", []string{"id", "sh", "-x", "-c", "y"}, true, false},
		{verb{min: 1, open: true}, "id sh -x", []string{"id", "sh", "-x"}, false, false},
		{verb{min: 1, open: true}, "-y id", nil, false, true},
	}
	for _, row := range rows {
		var x *bool
		var got []string
		row.v.name = "do"
		row.v.setup = func(f *flag.FlagSet) action {
			x = f.BoolP("ex", "x", false, "")
			return func(_ context.Context, args []string) (int, error) {
				got = append(got, args...)
				return 0, nil
			}
		}
		c := row.v.command()
		c.SilenceErrors, c.SilenceUsage = true, true
		c.SetArgs(strings.Fields(row.args))
		err := c.ExecuteContext(t.Context())
		if diff := cmp.Diff(row.want, got); diff != "" || *x != row.x || (err != nil) != row.bad {
			t.Errorf("%q: x %v, error %v, arguments differ: %s", row.args, *x, err, diff)
		}
	}
}

// The shells can read what completion prints, and it knows verbs, flags and containers.
func TestCompletion(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": nil, "fish": nil} {
		var out, errs bytes.Buffer
		if status := execute(t.Context(), []string{"completion", shell}, &out, &errs); status != 0 || !strings.Contains(out.String(), "holdfast") {
			t.Errorf("completion %s: status %d, %s", shell, status, &errs)
		}
		if check != nil {
			cmd := exec.Command(check[0], check[1:]...)
			cmd.Stdin = &out
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v, %s", shell, err, said)
			}
		}
	}
	for args, want := range map[string]string{"do": "doctor", "kill --sig": "--signal", "ls --js": "--json", "kill --signal W": "WINCH", "kill --signal USR": "USR1"} {
		var out, errs bytes.Buffer
		execute(t.Context(), append([]string{"__complete"}, strings.Fields(args)...), &out, &errs)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is completed with %s", args, &out)
		}
	}
}

func TestSignalsHaveNamesAndNumbers(t *testing.T) {
	rows := []struct {
		text string
		want int // -1: an error
	}{
		{"9", 9}, {"KILL", 9}, {"sigterm", 15}, {"0", 0}, {"35", 35}, {"WINCH", 28},
		{"", -1}, {"-1", -1}, {"128", -1}, {"NONSENSE", -1},
	}
	for _, row := range rows {
		got, err := signalNumber(row.text)
		if row.want < 0 && err == nil || row.want >= 0 && (err != nil || int(got) != row.want) {
			t.Errorf("%q is %d, error %v; want %d", row.text, got, err, row.want)
		}
	}
}

// holdfast prepares the program, with a directory for temporary files that nobody else uses, and
// returns that.
func holdfast(t *testing.T, ctx context.Context, args ...string) (*exec.Cmd, string) {
	t.Helper()
	tmp, err := os.MkdirTemp("", "hft-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(tmp); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "holdfast"), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	return cmd, tmp
}

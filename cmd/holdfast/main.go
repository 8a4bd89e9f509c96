package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"holdfast/internal/node"
)

// Exit statuses of holdfast itself.
const (
	exitFailed = 125 // as other tools that pass on the status of a container
	exitUsage  = 2   // but exitFailed of those verbs, for which it is a container's status like others
)

// passOn are the verbs that end with the status of a container's process.
var passOn = []string{"run", "exec", "attach"}

// misuse is an error of whoever calls, found by looking at the arguments alone.
type misuse struct{ error }

// version is set by the linker, see the Makefile.
var version = "unknown"

// action is a verb whose flags have been parsed. It returns the exit status.
type action func(ctx context.Context, args []string) (int, error)

// verb is one row of the table of verbs.
type verb struct {
	name, usage, help string
	min, max          int  // arguments
	open              bool // the arguments after the first are passed on, flags and all
	setup             func(*flag.FlagSet) action
}

// The groups of verbs, as -h shows them.
var groups = []struct {
	id, title string
	verbs     []verb
}{
	{"run", "Containers, without a manager:", runVerbs},
	{"ask", "Ask a shim about a container:", shimVerbs},
	{"control", "Change what a container does:", controlVerbs},
	{"look", "Look into a shim of holdfast's:", lookVerbs},
	{"node", "Look at the whole node:", nodeVerbs},
}

var runVerbs = []verb{
	{"run", runUsage, "run a container through a shim of its own; without BUNDLE one that greets", 0, -1, true, setupRun},
	{"create", runUsage, "create a container in a shim of its own, which waits for start", 0, -1, true, setupCreate},
}

const runUsage = "[BUNDLE | --rootfs DIR COMMAND…]"

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], stdout, os.Stderr))
}

// outcome is the end of a verb that was understood.
type outcome struct {
	status int
	err    error
}

func (o *outcome) Error() string { return fmt.Sprint(o.err) }

// execute runs the verb in args and returns the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	name := ran.CommandPath()
	usage := exitUsage
	if slices.Contains(passOn, ran.Name()) {
		usage = exitFailed
	}
	end, wrong := &outcome{}, misuse{}
	understood := err == nil || errors.As(err, &end)
	if o, ok := stdout.(*output); ok && o.failed != nil && (err == nil || errors.Is(cmp.Or(end.err, err), o.failed)) {
		understood, end.err = true, fmt.Errorf("cannot write all output: because %w", o.failed)
	}
	switch {
	case !understood, errors.As(end.err, &wrong):
		fmt.Fprintf(stderr, "%s: %v; %s -h explains\n", name, cmp.Or(end.err, err), name)
		return usage
	case end.err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", name, end.err)
		return cmp.Or(end.status, exitFailed)
	}
	return end.status
}

// isID tells whether an id can be one: it is part of names of files.
func isID(id string) bool {
	return len(id) <= maxID && id != "." && id != ".." && !strings.HasPrefix(id, "-") && !strings.ContainsAny(id, "/\x00")
}

// maxID leaves room for what the shim puts around an id in the name of a file.
const maxID = 200

func badID(id string) error {
	return misuse{fmt.Errorf("cannot use %q as an id: because it is no file name; use letters, digits, dots and dashes, %d at most", id, maxID)}
}

func noVerb(name string) error { return fmt.Errorf("there is no verb %q", name) }

// newRoot returns the tree of commands.
func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "holdfast VERB", Short: "run containers through a shim without a manager, and look into shims",
		SilenceErrors: true, SilenceUsage: true, Version: version,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noVerb(args[0])
			}
			return errors.New("a verb is missing")
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("holdfast {{.Version}}\n")
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, v := range g.verbs {
			c := v.command()
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	hidden := tidyVerb.command()
	hidden.Hidden = true
	root.AddCommand(hidden)
	addHelp(root)
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "holdfast", version) },
	})
	return root
}

// addHelp adds help and completion, which cobra would add, but with status 0 for what they do not know.
func addHelp(root *cobra.Command) {
	root.DisableFlagsInUseLine = true
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	root.SetUsageTemplate(strings.NewReplacer(
		"{{if .HasAvailableSubCommands}}\n  {{.CommandPath}} [command]{{end}}", "",
		"Additional Commands:", "Besides:",
		"Use \"{{.CommandPath}} [command] --help\" for more information about a command.", "holdfast VERB -h explains a verb.",
	).Replace(root.UsageTemplate()))
	root.SetHelpCommand(&cobra.Command{
		Use: "help [VERB]", Short: "explain a verb", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			about, _, err := root.Find(args)
			if err == nil && about == root && len(args) > 0 {
				err = noVerb(args[0])
			}
			if err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	})
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.RunE = func(_ *cobra.Command, args []string) error {
				return fmt.Errorf("cannot complete for %q: because only bash, zsh, fish and powershell are known", strings.Join(args, " "))
			}
			c.Args, c.Use, c.DisableFlagsInUseLine, c.Long, c.Short = nil, "completion SHELL", true, "",
				"print what bash, zsh or fish needs to complete verbs, flags and ids"
		}
	}
}

// command returns the verb as a command of its own.
func (v verb) command() *cobra.Command {
	c := &cobra.Command{
		Use: strings.TrimSpace(v.name + " [FLAGS] " + v.usage), Short: v.help, DisableFlagsInUseLine: true,
		Args: func(_ *cobra.Command, args []string) error { return v.fits(args) },
	}
	act := v.setup(c.Flags())
	c.Flags().SetInterspersed(!v.open)
	c.Flags().SortFlags = false
	c.RunE = func(c *cobra.Command, args []string) error {
		status, err := act(c.Context(), args)
		if status == 0 && err == nil {
			return nil
		}
		return &outcome{status, err}
	}
	if strings.Contains(v.usage, "ID") {
		c.ValidArgsFunction = completeIDs
	}
	if c.Flags().Lookup("signal") != nil {
		// It fails only for flags that do not exist.
		_ = c.RegisterFlagCompletionFunc("signal", completeSignals)
	}
	c.Example = examples[v.name]
	return c
}

// fits tells whether these are as many arguments as the verb takes.
func (v verb) fits(args []string) error {
	if slices.Contains(args[:min(len(args), 1)], "") && strings.Contains(v.usage, "ID") {
		return errors.New("cannot look for a container: because its id is empty")
	}
	if len(args) >= v.min && (v.open || len(args) <= v.max) {
		return nil
	}
	return fmt.Errorf("cannot work with %d arguments: want %s", len(args), cmp.Or(v.usage, "none"))
}

// completeSignals names the signals that kill(1) knows, without the SIG that may be left out.
func completeSignals(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
	for n := unix.Signal(1); n < 32; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeIDs names the containers of this node, for the first argument.
func completeIDs(c *cobra.Command, args []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // of a command to run
	}
	shims, err := node.Find(c.Context(), node.Config{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, s := range shims {
		ids = append(ids, s.Containers()...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), cobra.ShellCompDirectiveNoFileComp
}

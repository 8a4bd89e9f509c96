package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// Exit statuses of holdfast itself.
const (
	exitFailed = 125 // as other tools that pass on the status of a container
	exitUsage  = 2
)

// version is set by the linker, see the Makefile.
var version = "unknown"

// action is a verb whose flags have been parsed. It returns the exit status.
type action func(ctx context.Context, args []string) (int, error)

// verb is one row of the table of verbs.
type verb struct {
	name, usage, help string
	min, max          int  // arguments
	open              bool // the arguments after the first min are passed on, flags and all
	setup             func(*flag.FlagSet) action
}

func verbs() []verb {
	return append([]verb{
		{
			name: "run", usage: "[-t] [-i] [-d] [BUNDLE]", max: 1, setup: setupRun,
			help: "run a container through a shim of its own; without BUNDLE one that greets",
		},
		{name: "ls", help: "list the shims of this node and their containers, and what others have left", setup: setupList},
		{name: "gc", help: "name the sockets that nobody listens on any more; with -yes, remove them", setup: setupCollect},
		{name: "doctor", help: "look whether this node is fit for the shim, and say what to do", setup: setupDoctor},
	}, slices.Concat(lookVerbs, shimVerbs)...)
}

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs the verb in args and returns the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		overview(stderr)
		return exitUsage
	}
	switch name := strings.TrimLeft(args[0], "-"); name {
	case "h", "help":
		overview(stdout)
		return 0
	case "v", "version":
		fmt.Fprintln(stdout, "holdfast", version)
		return 0
	}
	for _, v := range verbs() {
		if v.name == args[0] {
			return v.execute(ctx, args[1:], stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "holdfast: there is no verb %q; holdfast -h lists them\n", args[0])
	return exitUsage
}

func (v verb) execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	act := v.setup(flags)
	positional, err := v.parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		v.describe(stdout, flags)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "holdfast %s: %v; holdfast %s -h explains\n", v.name, err, v.name)
		return exitUsage
	}
	status, err := act(ctx, positional)
	if err != nil {
		fmt.Fprintf(stderr, "holdfast %s: %v\n", v.name, err)
		if status == 0 {
			status = exitFailed
		}
	}
	return status
}

// parse takes flags before, between and after the arguments; after the first min only if what
// follows is not for somebody else.
func (v verb) parse(flags *flag.FlagSet, args []string) ([]string, error) {
	var positional []string
	for {
		if v.open && len(positional) == v.min {
			positional = append(positional, args...)
			break
		}
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			break
		}
		positional, args = append(positional, flags.Arg(0)), flags.Args()[1:]
	}
	if len(positional) < v.min || len(positional) > v.max && !v.open {
		return nil, fmt.Errorf("cannot work with %d arguments: want %s", len(positional), v.wants())
	}
	return positional, nil
}

func (v verb) wants() string {
	if v.usage == "" {
		return "none"
	}
	return v.usage
}

func overview(w io.Writer) {
	fmt.Fprint(w, "Usage: holdfast VERB [FLAGS] [ARGUMENTS]\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range verbs() {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", v.name, v.usage, v.help)
	}
	table.Flush()
	fmt.Fprint(w, "\nholdfast VERB -h explains the flags of a verb, holdfast version prints the version.\n")
}

func (v verb) describe(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: holdfast %s\n\n%s\n", strings.TrimSpace(v.name+" [FLAGS] "+strings.TrimPrefix(v.usage, "[-t] [-i] [-d] ")), v.help)
	fmt.Fprint(w, "\nFlags:\n")
	flags.SetOutput(w)
	flags.PrintDefaults()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// exitUnwell is the status of doctor when something fails.
const exitUnwell = 1

// nodeVerbs are those that look at the whole machine. Read only.
var nodeVerbs = []verb{
	{"ls", "", "list all shims of the node, their containers, and what was left behind", 0, 0, false, setupLs},
	{"stats", "[ID]", "show what containers use, again and again with --watch", 0, 1, false, setupStats},
	{"metrics", "", "print the whole node in the text format of Prometheus", 0, 0, false, setupMetrics},
	{"gc", "", "tell what is provably dead, and remove it with --yes", 0, 0, false, setupGC},
	{"doctor", "", "check the node, and say what to do", 0, 0, false, setupDoctor},
}

func setupLs(f *flag.FlagSet) action {
	o := &lsOptions{}
	f.StringVar(&o.namespace, "namespace", "", "containerd namespace; all if not given")
	f.BoolVar(&o.json, "json", false, "print JSON, one document")
	return func(ctx context.Context, _ []string) (int, error) { return 0, ls(ctx, stdout, *o) }
}

// interval is a flag: a time above 0.
type interval time.Duration

func newInterval(of *time.Duration) *interval {
	*of = statsInterval
	return (*interval)(of)
}

func (i *interval) String() string { return time.Duration(*i).String() }
func (i *interval) Type() string   { return "duration" }

// Set keeps the value if text is none.
func (i *interval) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 {
		err = errors.New("it is not above 0")
	}
	if err == nil {
		*i = interval(d)
	}
	return err
}

func setupStats(f *flag.FlagSet) action {
	o, t := &statsOptions{}, &target{}
	f.StringVar(&t.address, "address", "", "address of a shim, unix://PATH: print all that it says of ID")
	f.StringVar(&o.namespace, "namespace", "", "containerd namespace; all if not given")
	f.BoolVar(&o.json, "json", false, "print JSON, one object for each container and line")
	f.BoolVar(&o.watch, "watch", false, "go on until Ctrl-C")
	f.Var(newInterval(&o.interval), "interval", "time between two tables of --watch")
	return func(ctx context.Context, args []string) (int, error) {
		if len(args) > 0 {
			o.id, t.id = args[0], args[0]
		}
		if t.address != "" {
			if t.namespace = o.namespace; t.namespace == "" {
				t.namespace = client.DefaultNamespace
			}
			if err := t.dial(ctx); err != nil {
				return 0, err
			}
			defer t.Close()
			return stats(ctx, t)
		}
		ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
		defer stop()
		_, _, o.terminal = windowSize(os.Stdout)
		return 0, nodeStats(ctx, stdout, *o)
	}
}

func setupMetrics(f *flag.FlagSet) action {
	o := &surveyOptions{}
	f.StringVar(&o.namespace, "namespace", "", "containerd namespace; all if not given")
	return func(ctx context.Context, _ []string) (int, error) { return 0, metrics(ctx, stdout, *o) }
}

func setupGC(f *flag.FlagSet) action {
	o := &gcOptions{}
	f.StringVar(&o.namespace, "namespace", "", "bundles of this containerd namespace only, and no sockets; all if not given")
	f.BoolVar(&o.yes, "yes", false, "remove it")
	f.BoolVar(&o.json, "json", false, "print JSON, one document")
	return func(ctx context.Context, _ []string) (int, error) { return 0, gc(ctx, stdout, *o) }
}

func setupDoctor(f *flag.FlagSet) action {
	asJSON := f.Bool("json", false, "print JSON, one document")
	return func(ctx context.Context, _ []string) (int, error) {
		failing, err := doctor(ctx, stdout, thisHost(), *asJSON)
		if err != nil {
			return 0, fmt.Errorf("cannot print: %w", err)
		}
		if failing {
			return exitUnwell, nil
		}
		return 0, nil
	}
}

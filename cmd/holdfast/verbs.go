package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	// Messages that are decoded by the name of their type.
	_ "github.com/containerd/cgroups/v3/cgroup1/stats"
	_ "github.com/containerd/cgroups/v3/cgroup2/stats"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"holdfast/internal/client"
	"holdfast/internal/node"
	"holdfast/internal/proc"
)

// target is a process of a running shim, and what is asked about it.
type target struct {
	*client.Shim

	address, namespace string
	id, exec           string
	args               []string // after the id

	shimPid         int
	signal          string
	all             bool
	terminal, stdin bool
	trace           bool
	json            bool
	follow          bool
	interval        time.Duration
	once            bool
	limits          limits
	image           string
	width, height   uint16
}

// shimVerbs are the verbs that ask a running shim. Read only.
var shimVerbs = []verb{
	{"connect", "[ID]", "print the pids of the shim and of the container", 0, 1, false, onShim(connect, nil)},
	{"state", "ID", "print the state of a process", 1, 1, false, onShim(state, execFlag)},
	{"pids", "ID", "print the pids of the processes of a container, as the shim tells them", 1, 1, false, onShim(pids, nil)},
	{"exec", "ID COMMAND…", "run another process in a container", 1, -1, true, onShim(runExec, attachFlags)},
	{"attach", "ID", "connect to the streams of a process; Ctrl-P Ctrl-Q leaves it again", 1, 1, false, onShim(reattach, execFlag)},
	{"kill", "ID", "send a signal to a process", 1, 1, false, onShim(kill, killFlags)},
	{"wait", "ID", "wait for the exit of a process", 1, 1, false, onShim(wait, execFlag)},
	{"delete", "ID", "delete a process that has exited, or what a killed shim has left of a run", 1, 1, false, setupDelete},
	{"shutdown", "[ID]", "end a shim that has no containers", 0, 1, false, onShim(shutdown, nil)},
}

func execFlag(f *flag.FlagSet, t *target) {
	f.StringVar(&t.exec, "exec", "", "id of an exec process; the init process if not given")
}

func jsonFlag(f *flag.FlagSet, t *target) {
	f.BoolVar(&t.json, "json", false, "print JSON")
}

func killFlags(f *flag.FlagSet, t *target) {
	execFlag(f, t)
	f.StringVar(&t.signal, "signal", "KILL", "name or number of the signal")
	f.BoolVar(&t.all, "all", false, "send it to all processes of the container")
}

func attachFlags(f *flag.FlagSet, t *target) {
	f.StringVar(&t.exec, "exec", "", "id of the exec process; made up if not given")
	f.BoolVarP(&t.terminal, "tty", "t", false, "give the process a terminal")
	f.BoolVarP(&t.stdin, "interactive", "i", false, "pass on standard input; implied by -t")
}

// onShim makes a verb of a function that asks a shim.
func onShim(do func(context.Context, *target) (int, error), flags func(*flag.FlagSet, *target)) func(*flag.FlagSet) action {
	return func(f *flag.FlagSet) action {
		t := &target{}
		t.flags(f)
		if flags != nil {
			flags(f, t)
		}
		return func(ctx context.Context, args []string) (int, error) {
			if len(args) > 0 {
				t.id, t.args = args[0], args[1:]
			}
			if err := t.dial(ctx); err != nil {
				return 0, err
			}
			defer t.Close()
			return do(ctx, t)
		}
	}
}

// flags are those that say which shim is meant.
func (t *target) flags(f *flag.FlagSet) {
	f.StringVar(&t.address, "address", "", "address of the shim, unix://PATH; that of the container's if not given")
	f.StringVar(&t.namespace, "namespace", "", "containerd namespace; with an address "+client.DefaultNamespace+" if not given")
}

// dial connects, in the newest version of the service that the shim has.
func (t *target) dial(ctx context.Context) (err error) {
	if t.exec != "" && !isID(t.exec) {
		return badID(t.exec)
	}
	if err := t.locate(ctx); err != nil {
		return err
	}
	if t.Shim, err = client.Dial(ctx, t.address); err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("cannot reach the shim: because only its owner, mostly root, may; use sudo: %w", err)
		}
		return err
	}
	t.Namespace = t.namespace
	request := &task.ConnectRequest{ID: t.id}
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	response, err := t.Connect(limited, request)
	if errors.Is(err, errdefs.ErrNotImplemented) {
		t.Version = 2
		response, err = t.Connect(limited, request)
	}
	if err != nil {
		t.Close()
		if limited.Err() != nil && ctx.Err() == nil {
			return t.silence(ctx)
		}
		return err
	}
	t.shimPid = int(response.GetShimPid())
	return nil
}

// answerLimit is how long a shim may take to answer what it has to answer at once.
const answerLimit = 5 * time.Second

// silence tells of a shim that does not answer what the kernel knows of it.
func (t *target) silence(ctx context.Context) error {
	shims, err := node.Find(ctx, node.Config{})
	if err != nil {
		return err
	}
	for _, s := range shims {
		if s.Address != t.address {
			continue
		}
		p, ok := proc.Read(s.Pid)
		if !ok {
			break
		}
		said := fmt.Sprintf("cannot ask the shim: because it does not answer; it is %v", p)
		for _, c := range childrenOf(s.Pid) {
			if child, ok := proc.Read(c); ok {
				said += fmt.Sprintf("; its child is %v", child)
			}
		}
		return errors.New(said)
	}
	return fmt.Errorf("cannot ask the shim: because nobody has answered at %s for %v", t.address, answerLimit)
}

// locate finds the shim that is meant: the one at --address, or the one that has the container.
func (t *target) locate(ctx context.Context) error {
	if t.address != "" {
		t.namespace = cmp.Or(t.namespace, client.DefaultNamespace)
		return nil
	}
	if t.id == "" {
		return misuse{errors.New("cannot choose a shim: because neither a container nor --address is given; `holdfast ls` lists the shims")}
	}
	s, err := node.Lookup(ctx, node.Config{}, t.namespace, t.id)
	if err != nil {
		return err
	}
	t.address, t.namespace = s.Address, s.Namespace
	return nil
}

// show prints m as JSON, zero values included, unless err is set, which it returns.
func show(m proto.Message, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return 0, err
	}
	return printJSON(data)
}

// printJSON prints data as people like it. protojson varies its white space from build to build, on
// purpose.
func printJSON(data []byte) (int, error) {
	var text bytes.Buffer
	if err := json.Indent(&text, data, "", "  "); err != nil {
		return 0, err
	}
	fmt.Fprintln(stdout, text.String())
	return 0, nil
}

func connect(ctx context.Context, t *target) (int, error) {
	return show(t.Connect(ctx, &task.ConnectRequest{ID: t.id}))
}

func state(ctx context.Context, t *target) (int, error) {
	response, err := t.State(ctx, &task.StateRequest{ID: t.id, ExecID: t.exec})
	if err != nil {
		return 0, err
	}
	data, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(response)
	if err != nil {
		return 0, err
	}
	if record := readRecord(response.GetBundle(), t.exec); record != nil {
		data = slices.Concat(bytes.TrimSuffix(data, []byte("}")), []byte(`,"record":`), record, []byte("}"))
	}
	return printJSON(data)
}

// readRecord returns what the shim has noted in the bundle of a process that has ended: its cause, and
// whose limit of memory was hit. It is nil if there is nothing, as with other shims.
func readRecord(bundle, exec string) []byte {
	name := "exit.json"
	if exec != "" {
		name = "exit." + exec + ".json"
	}
	record, err := os.ReadFile(filepath.Join(bundle, name))
	if err != nil || !json.Valid(record) {
		return nil
	}
	return record
}

func pids(ctx context.Context, t *target) (int, error) {
	return show(t.Pids(ctx, &task.PidsRequest{ID: t.id}))
}

func wait(ctx context.Context, t *target) (int, error) {
	return show(t.Wait(ctx, &task.WaitRequest{ID: t.id, ExecID: t.exec}))
}

func remove(ctx context.Context, t *target) (int, error) {
	return show(t.Delete(ctx, &task.DeleteRequest{ID: t.id, ExecID: t.exec}))
}

// stats prints the type as the shim names it, and what is in it if the type is known.
func stats(ctx context.Context, t *target) (int, error) {
	response, err := t.Stats(ctx, &task.StatsRequest{ID: t.id})
	if err != nil {
		return 0, err
	}
	fmt.Fprintln(stdout, response.GetStats().GetTypeUrl())
	return show(response.GetStats().UnmarshalNew())
}

func kill(ctx context.Context, t *target) (int, error) {
	number, err := signalNumber(t.signal)
	if err != nil {
		return 0, err
	}
	_, err = t.Kill(ctx, &task.KillRequest{ID: t.id, ExecID: t.exec, Signal: uint32(number), All: t.all})
	return 0, err
}

// signalNumber understands 9, KILL and SIGKILL.
func signalNumber(text string) (syscall.Signal, error) {
	if n, err := strconv.ParseUint(text, 10, 7); err == nil {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, misuse{fmt.Errorf("cannot send signal %q: because there is none of that name; kill -l lists them", text)}
}

// shutdownLimit is how long a shim may take to end: it may spend five seconds on its last events.
const shutdownLimit = 8 * time.Second

func shutdown(ctx context.Context, t *target) (int, error) {
	// Other shims do not tell; they are known by their silence, below.
	if f, err := t.Facts(ctx); err == nil && len(f.Containers) > 0 {
		return 0, fmt.Errorf("cannot shut the shim down: because it has container %s; kill and delete that first", f.Containers[0].ID)
	}
	process, err := client.OpenProcess(t.shimPid)
	if err != nil {
		return 0, err
	}
	defer process.Close()
	left, err := findLeftover(ctx, t.address, t.shimPid)
	if err != nil {
		return 0, err
	}
	if left != nil {
		defer left.events.Close()
	}
	limited, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	_, err = t.Shutdown(limited, &task.ShutdownRequest{ID: t.id})
	if waitErr := process.Wait(limited); waitErr != nil {
		// Only now: an answer may be lost when the shim ends.
		return 0, fmt.Errorf("cannot shut the shim down: because it has not ended; does it still have containers? delete them first: %w",
			errors.Join(err, waitErr))
	}
	if left == nil {
		return 0, nil
	}
	return 0, left.sweep(ctx)
}

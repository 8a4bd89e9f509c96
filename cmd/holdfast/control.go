package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	flag "github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// controlVerbs change what a container does. Read only.
var controlVerbs = []verb{
	{"start", "ID", "start a container that was created, or an exec", 1, 1, false, onShim(start, execFlag)},
	{"pause", "ID", "stop all processes of a container for a while", 1, 1, false, onShim(pause, nil)},
	{"resume", "ID", "let the processes of a paused container go on", 1, 1, false, onShim(resume, nil)},
	{"update", "ID", "change the limits of a container", 1, 1, false, onShim(update, limitFlags)},
	{"checkpoint", "ID", "write a container to a directory, with CRIU", 1, 1, false, onShim(checkpoint, checkpointFlags)},
	{"resize", "ID", "tell a process the size of its terminal", 1, 1, false, onShim(resize, sizeFlags)},
	{"close-io", "ID", "end the standard input of a process", 1, 1, false, onShim(closeIO, execFlag)},
	{"ps", "ID", "list the processes of a container", 1, 1, false, onShim(ps, jsonFlag)},
	{"top", "ID", "watch what the processes of a container do, until Ctrl-C", 1, 1, false, onShim(top, topFlags)},
}

// limits are what update may change; what is not given stays as it is.
type limits struct {
	memory, pids int64
	cpus         float64
}

func limitFlags(f *flag.FlagSet, t *target) {
	f.Int64Var(&t.limits.memory, "memory", 0, "bytes of memory; -1 for no limit")
	f.Float64Var(&t.limits.cpus, "cpus", 0, "processors' worth of time, 1.5 for example; -1 for no limit")
	f.Int64Var(&t.limits.pids, "pids", 0, "processes and threads; -1 for no limit")
}

func checkpointFlags(f *flag.FlagSet, t *target) {
	f.StringVar(&t.image, "image", "", "directory for the image (needed)")
	f.BoolVar(&t.all, "exit", false, "end the container when it has been written")
}

func sizeFlags(f *flag.FlagSet, t *target) {
	execFlag(f, t)
	f.Uint16Var(&t.width, "width", 80, "columns")
	f.Uint16Var(&t.height, "height", 24, "lines")
}

func start(ctx context.Context, t *target) (int, error) {
	return show(t.Start(ctx, &task.StartRequest{ID: t.id, ExecID: t.exec}))
}

func pause(ctx context.Context, t *target) (int, error) {
	_, err := t.Pause(ctx, &task.PauseRequest{ID: t.id})
	return 0, err
}

func resume(ctx context.Context, t *target) (int, error) {
	_, err := t.Resume(ctx, &task.ResumeRequest{ID: t.id})
	return 0, err
}

// cpuPeriod is what a share of a processor is a share of, in microseconds: the kernel's default.
const cpuPeriod = 100_000

// maxCPUs is more than any machine has.
const maxCPUs = 1 << 20

// resources returns the limits as the runtime takes them.
func (l limits) resources() (specs.LinuxResources, error) {
	var r specs.LinuxResources
	switch {
	case l == (limits{}):
		return r, misuse{errors.New("cannot change nothing: give --memory, --cpus or --pids, each above 0, or -1 for no limit")}
	case l.memory < -1, l.pids < -1, l.cpus < 0 && l.cpus != -1, math.IsNaN(l.cpus), l.cpus > maxCPUs:
		return r, misuse{errors.New("cannot use that as a limit: because it is neither above 0 nor -1, which lifts it, or too much")}
	}
	if l.memory != 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.memory}
	}
	if l.cpus != 0 {
		period, quota := uint64(cpuPeriod), int64(l.cpus*cpuPeriod)
		if l.cpus < 0 {
			quota = -1
		}
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if l.pids != 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.pids}
	}
	return r, nil
}

func update(ctx context.Context, t *target) (int, error) {
	resources, err := t.limits.resources()
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(resources)
	if err != nil {
		return 0, err
	}
	_, err = t.Update(ctx, &task.UpdateTaskRequest{ID: t.id, Resources: &anypb.Any{
		TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: data,
	}})
	return 0, err
}

func checkpoint(ctx context.Context, t *target) (int, error) {
	if t.image == "" {
		return 0, misuse{errors.New("cannot write a checkpoint: because it has no place; give --image DIRECTORY")}
	}
	path, err := filepath.Abs(t.image) // the shim works elsewhere
	if err != nil {
		return 0, err
	}
	value, err := proto.Marshal(&options.CheckpointOptions{Exit: t.all})
	if err != nil {
		return 0, err
	}
	_, err = t.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: t.id, Path: path, Options: &anypb.Any{
		TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: value,
	}})
	return 0, err
}

func resize(ctx context.Context, t *target) (int, error) {
	_, err := t.ResizePty(ctx, &task.ResizePtyRequest{ID: t.id, ExecID: t.exec, Width: uint32(t.width), Height: uint32(t.height)})
	return 0, err
}

func closeIO(ctx context.Context, t *target) (int, error) {
	_, err := t.CloseIO(ctx, &task.CloseIORequest{ID: t.id, ExecID: t.exec, Stdin: true})
	return 0, err
}

func ps(ctx context.Context, t *target) (int, error) {
	response, err := t.Pids(ctx, &task.PidsRequest{ID: t.id})
	if err != nil {
		return 0, err
	}
	all := []described{}
	for _, p := range response.GetProcesses() {
		all = append(all, describeProcess(int(p.GetPid())))
	}
	if t.json {
		return 0, writeJSON(stdout, all)
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PID\tSTATE\tMEMORY\tCOMMAND")
	for _, p := range all {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", p.Pid, p.State, p.memoryText(), p.Command)
	}
	return 0, table.Flush()
}

// described is what the kernel tells of a process.
type described struct {
	Pid     int    `json:"pid"`
	State   string `json:"state"`        // a letter of proc(5); "-" for what has ended meanwhile
	Memory  int64  `json:"memory_bytes"` // resident; -1 for what has none
	Command string `json:"command"`
}

func (d described) memoryText() string {
	if d.Memory < 0 {
		return "-"
	}
	return bytesText(d.Memory)
}

func describeProcess(pid int) described {
	dir := "/proc/" + strconv.Itoa(pid)
	d := described{Pid: pid, State: "-", Memory: -1, Command: "-"}
	status, _ := os.ReadFile(dir + "/status") // it may have ended
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Name":
			d.Command = "[" + strings.TrimSpace(value) + "]"
		case "State":
			d.State = strings.Fields(value + " -")[0]
		case "VmRSS":
			kib, _ := strconv.ParseInt(strings.Fields(value + " 0")[0], 10, 64) // the kernel writes a number
			d.Memory = kib << 10
		}
	}
	if line, _ := os.ReadFile(dir + "/cmdline"); len(line) > 0 {
		d.Command = strings.ReplaceAll(strings.TrimSuffix(string(line), "\x00"), "\x00", " ")
	}
	return d
}

package main

import (
	"reflect"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/events"
	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// packages are what is generated.
var packages = []target{
	{dir: ".", name: "api", getters: true, messages: []proto.Message{
		&task.CreateTaskRequest{}, &task.CreateTaskResponse{}, &task.DeleteRequest{}, &task.DeleteResponse{},
		&task.ExecProcessRequest{}, &task.ExecProcessResponse{}, &task.ResizePtyRequest{}, &task.StateRequest{},
		&task.StateResponse{}, &task.KillRequest{}, &task.CloseIORequest{}, &task.PidsRequest{},
		&task.PidsResponse{}, &task.CheckpointTaskRequest{}, &task.UpdateTaskRequest{}, &task.StartRequest{},
		&task.StartResponse{}, &task.WaitRequest{}, &task.WaitResponse{}, &task.StatsRequest{},
		&task.StatsResponse{}, &task.ConnectRequest{}, &task.ConnectResponse{}, &task.ShutdownRequest{},
		&task.PauseRequest{}, &task.ResumeRequest{}, &emptypb.Empty{},

		&events.TaskCreate{}, &events.TaskStart{}, &events.TaskDelete{}, &events.TaskExit{}, &events.TaskOOM{},
		&events.TaskExecAdded{}, &events.TaskExecStarted{}, &events.TaskPaused{}, &events.TaskResumed{},
		&events.TaskCheckpointed{}, &eventsapi.ForwardRequest{},

		&bootstrap.BootstrapParams{}, &bootstrap.BootstrapResult{}, &types.RuntimeRequest{}, &types.RuntimeInfo{}, &types.MountCapabilities{},
		&options.Options{}, &options.CheckpointOptions{}, &options.ProcessDetails{}, &runtimeoptions.Options{},
	}},
	{dir: "stats1", name: "stats1", messages: []proto.Message{&stats1.Metrics{}}},
	{dir: "stats2", name: "stats2", messages: []proto.Message{&stats2.Metrics{}}},
}

// inJSON are the messages that a bundle keeps as JSON.
var inJSON = map[reflect.Type]bool{reflect.TypeFor[options.Options](): true}

// renamed are the names of what would have the same one.
var renamed = map[reflect.Type]string{
	reflect.TypeFor[runtimeoptions.Options](): "RuntimeOptions",
}

package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"holdfast/process"
	"holdfast/runc"
)

// statuses are the states as clients know them. A failed exec is shown as created, which clients
// and containerd's own tests rely on (contract 3.3, 17).
var statuses = map[process.State]tasktypes.Status{
	process.Created: tasktypes.Status_CREATED,
	process.Failed:  tasktypes.Status_CREATED,
	process.Running: tasktypes.Status_RUNNING,
	process.Pausing: tasktypes.Status_PAUSING,
	process.Paused:  tasktypes.Status_PAUSED,
	process.Stopped: tasktypes.Status_STOPPED,
	process.Deleted: tasktypes.Status_STOPPED,
}

// timestamp returns t for the wire. "Not yet" is sent as Go's zero time, since a missing field
// reads as 1970 (contract 3.1).
func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// State tells how a process stands.
func (s *Service) State(ctx context.Context, r *task.StateRequest) (*task.StateResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	info, err := c.State(r.GetExecID())
	if err != nil {
		return nil, err
	}
	return &task.StateResponse{
		ID: info.ID, Bundle: info.Bundle, Pid: number(info.Pid), Status: statuses[info.State],
		Stdin: info.Stdin, Stdout: info.Stdout, Stderr: info.Stderr, Terminal: info.Terminal,
		ExitStatus: number(info.Exit.Status), ExitedAt: timestamp(info.Exit.At),
	}, nil
}

// Wait waits for the end of a process.
func (s *Service) Wait(ctx context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	exit, err := c.Wait(ctx, r.GetExecID())
	if err != nil {
		return nil, err
	}
	return &task.WaitResponse{ExitStatus: number(exit.Status), ExitedAt: timestamp(exit.At)}, nil
}

// Delete frees a process. A Create of the container that is under way is undone, which may still be
// going on when Delete answers that there is no such container.
func (s *Service) Delete(ctx context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
	if r.GetExecID() == "" {
		s.unwant(r.GetID(), true)
	}
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	pid, exit, err := c.Delete(ctx, r.GetExecID())
	if err != nil {
		if r.GetExecID() == "" && ctx.Err() == nil {
			s.unwant(r.GetID(), false) // it failed; otherwise it goes on without its caller
		}
		return nil, err
	}
	return &task.DeleteResponse{Pid: number(pid), ExitStatus: number(exit.Status), ExitedAt: timestamp(exit.At)}, nil
}

// Pids lists the processes of a container.
func (s *Service) Pids(ctx context.Context, r *task.PidsRequest) (*task.PidsResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	pids, execs := c.Pids(ctx)
	answer := &task.PidsResponse{}
	for _, pid := range pids {
		p := &tasktypes.ProcessInfo{Pid: number(pid)}
		if id, ok := execs[pid]; ok {
			if p.Info, err = pack(&options.ProcessDetails{ExecID: id}); err != nil {
				return nil, err
			}
		}
		answer.Processes = append(answer.Processes, p)
	}
	return answer, nil
}

// pack returns m as an Any with a bare type name, which is what containerd expects (contract T68).
func pack(m proto.Message) (*anypb.Any, error) {
	value, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name(m), err)
	}
	return &anypb.Any{TypeUrl: name(m), Value: value}, nil
}

// Pause freezes a container.
func (s *Service) Pause(ctx context.Context, r *task.PauseRequest) (*emptypb.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.Pause(ctx))
}

// Resume lets a frozen container go on.
func (s *Service) Resume(ctx context.Context, r *task.ResumeRequest) (*emptypb.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.Resume(ctx))
}

// Checkpoint writes a container to disk. Options may be missing or empty (contract T70).
func (s *Service) Checkpoint(ctx context.Context, r *task.CheckpointTaskRequest) (*emptypb.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(r.GetPath()) {
		return nil, fmt.Errorf("cannot checkpoint task %s: its path %q is not absolute: %w", r.GetID(), r.GetPath(), errdefs.ErrInvalidArgument)
	}
	var o options.CheckpointOptions
	if a := r.GetOptions(); len(a.GetValue()) > 0 {
		if typeName(a) != name(&o) {
			return nil, fmt.Errorf("cannot checkpoint task %s: options are of type %q; give %s: %w", r.GetID(), a.GetTypeUrl(), name(&o), errdefs.ErrInvalidArgument)
		}
		if err := proto.Unmarshal(a.GetValue(), &o); err != nil {
			return nil, fmt.Errorf("cannot checkpoint task %s: decode options: %w: %w", r.GetID(), err, errdefs.ErrInvalidArgument)
		}
	}
	return done(c.Checkpoint(ctx, runc.CheckpointConfig{
		Image: r.GetPath(), Work: o.GetWorkPath(), Parent: o.GetParentPath(), Exit: o.GetExit(),
		OpenTCP: o.GetOpenTcp(), ExternalUnixSockets: o.GetExternalUnixSockets(),
		Terminal: o.GetTerminal(), FileLocks: o.GetFileLocks(),
		EmptyNamespaces: o.GetEmptyNamespaces(), CgroupsMode: o.GetCgroupsMode(),
	}))
}

// Exec adds a process to a container.
func (s *Service) Exec(ctx context.Context, r *task.ExecProcessRequest) (*emptypb.Empty, error) {
	if err := checkID("exec", r.GetExecID()); err != nil {
		return nil, err
	}
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	spec, err := withTerminal(r.GetSpec().GetValue(), r.GetTerminal())
	if err != nil {
		return nil, fmt.Errorf("cannot add exec %s to task %s: %w; give the process as JSON of the runtime specification: %w", r.GetExecID(), r.GetID(), err, errdefs.ErrInvalidArgument)
	}
	return done(c.Exec(process.ExecConfig{
		ID: r.GetExecID(), Process: spec, Terminal: r.GetTerminal(),
		Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(),
	}))
}

// withTerminal sets one field of a process and leaves the others as they are, known to us or not.
func withTerminal(spec []byte, terminal bool) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(spec, &fields); err != nil {
		return nil, fmt.Errorf("decode its spec: %w", err)
	}
	if fields == nil {
		return nil, fmt.Errorf("its spec is null")
	}
	fields["terminal"] = json.RawMessage(fmt.Sprint(terminal))
	return json.Marshal(fields)
}

// ResizePty changes the size of a console. The kernel has 16 bits for each side.
func (s *Service) ResizePty(ctx context.Context, r *task.ResizePtyRequest) (*emptypb.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	width, height := min(r.GetWidth(), math.MaxUint16), min(r.GetHeight(), math.MaxUint16)
	return done(c.Resize(r.GetExecID(), uint16(width), uint16(height)))
}

// CloseIO ends the input of a process.
func (s *Service) CloseIO(ctx context.Context, r *task.CloseIORequest) (*emptypb.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.CloseStdin(r.GetExecID()))
}

// Update changes resource limits. They are JSON, whatever the type URL says (contract 3.2).
func (s *Service) Update(ctx context.Context, r *task.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	resources := r.GetResources().GetValue()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(resources, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("cannot update task %s: its resources are missing or no JSON object; give resources of the runtime specification: %w", r.GetID(), errdefs.ErrInvalidArgument)
	}
	return done(c.Update(ctx, resources))
}

// Stats returns the numbers of a container's control group.
func (s *Service) Stats(ctx context.Context, r *task.StatsRequest) (*task.StatsResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	numbers, err := c.Stats()
	if err != nil {
		return nil, err
	}
	value, err := pack(numbers)
	if err != nil {
		return nil, err
	}
	return &task.StatsResponse{Stats: value}, nil
}

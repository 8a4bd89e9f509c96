package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"

	"github.com/containerd/errdefs"

	"holdfast/internal/api"
	"holdfast/internal/wire"
	"holdfast/process"
	"holdfast/runc"
)

// statuses are the states as clients know them. A failed exec is shown as created, which clients
// and containerd's own tests rely on (contract 3.3, 17).
var statuses = map[process.State]api.Status{
	process.Created: api.Status_CREATED,
	process.Failed:  api.Status_CREATED,
	process.Running: api.Status_RUNNING,
	process.Pausing: api.Status_PAUSING,
	process.Paused:  api.Status_PAUSED,
	process.Stopped: api.Status_STOPPED,
	process.Deleted: api.Status_STOPPED,
}

// State tells how a process stands.
func (s *Service) State(ctx context.Context, r *api.StateRequest) (*api.StateResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	info, err := c.State(r.GetExecID())
	if err != nil {
		return nil, err
	}
	return &api.StateResponse{
		ID: info.ID, Bundle: info.Bundle, Pid: number(info.Pid), Status: statuses[info.State],
		Stdin: info.Stdin, Stdout: info.Stdout, Stderr: info.Stderr, Terminal: info.Terminal,
		ExitStatus: number(info.Exit.Status), ExitedAt: api.Time(info.Exit.At),
	}, nil
}

// Wait waits for the end of a process.
func (s *Service) Wait(ctx context.Context, r *api.WaitRequest) (*api.WaitResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	exit, err := c.Wait(ctx, r.GetExecID())
	if err != nil {
		return nil, err
	}
	return &api.WaitResponse{ExitStatus: number(exit.Status), ExitedAt: api.Time(exit.At)}, nil
}

// Delete frees a process. A Create of the container that is under way is undone, which may still be
// going on when Delete answers that there is no such container.
func (s *Service) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	if r.GetExecID() == "" {
		s.unwant(r.GetID())
	}
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	pid, exit, err := c.Delete(ctx, r.GetExecID())
	if err != nil {
		if r.GetExecID() == "" && ctx.Err() == nil {
			s.keep(r.GetID(), runs(c)) // it failed; otherwise it goes on without its caller
		}
		return nil, err
	}
	return &api.DeleteResponse{Pid: number(pid), ExitStatus: number(exit.Status), ExitedAt: api.Time(exit.At)}, nil
}

// Pids lists the processes of a container.
func (s *Service) Pids(ctx context.Context, r *api.PidsRequest) (*api.PidsResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	pids, execs := c.Pids(ctx)
	answer := &api.PidsResponse{}
	for _, pid := range pids {
		p := &api.ProcessInfo{Pid: number(pid)}
		if id, ok := execs[pid]; ok {
			p.Info = pack(&api.ProcessDetails{ExecID: id})
		}
		answer.Processes = append(answer.Processes, p)
	}
	return answer, nil
}

// pack returns m as an Any with a bare type name, which is what containerd expects (contract T68).
func pack(m wire.Message) *api.Any { return &api.Any{TypeUrl: m.MessageName(), Value: wire.Marshal(m)} }

// Pause freezes a container.
func (s *Service) Pause(ctx context.Context, r *api.PauseRequest) (*api.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.Pause(ctx))
}

// Resume lets a frozen container go on.
func (s *Service) Resume(ctx context.Context, r *api.ResumeRequest) (*api.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.Resume(ctx))
}

// Checkpoint writes a container to disk. Options may be missing or empty (contract T70).
func (s *Service) Checkpoint(ctx context.Context, r *api.CheckpointTaskRequest) (*api.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(r.GetPath()) {
		return nil, fmt.Errorf("cannot checkpoint task %s: its path %q is not absolute: %w", r.GetID(), r.GetPath(), errdefs.ErrInvalidArgument)
	}
	var o api.CheckpointOptions
	if a := r.GetOptions(); len(a.GetValue()) > 0 {
		if typeName(a) != o.MessageName() {
			return nil, fmt.Errorf("cannot checkpoint task %s: options are of type %q; give %s: %w", r.GetID(), a.GetTypeUrl(), o.MessageName(), errdefs.ErrInvalidArgument)
		}
		if err := wire.Unmarshal(a.GetValue(), &o); err != nil {
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
func (s *Service) Exec(ctx context.Context, r *api.ExecProcessRequest) (*api.Empty, error) {
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

// withTerminal sets one field of a process and leaves the others as they are, known to us or not. Most have no
// terminal and say nothing of one, nor hide it in an escape: to decode and encode those takes 3 % of an exec.
func withTerminal(spec []byte, terminal bool) ([]byte, error) {
	if !terminal && json.Valid(spec) && bytes.HasPrefix(spec, []byte("{")) && !bytes.Contains(spec, []byte(`\u`)) &&
		!bytes.Contains(bytes.ToLower(spec), []byte("terminal")) {
		return spec, nil
	}
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
func (s *Service) ResizePty(ctx context.Context, r *api.ResizePtyRequest) (*api.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	width, height := min(r.GetWidth(), math.MaxUint16), min(r.GetHeight(), math.MaxUint16)
	return done(c.Resize(r.GetExecID(), uint16(width), uint16(height)))
}

// CloseIO ends the input of a process.
func (s *Service) CloseIO(ctx context.Context, r *api.CloseIORequest) (*api.Empty, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	return done(c.CloseStdin(r.GetExecID()))
}

// Update changes resource limits. They are JSON, whatever the type URL says (contract 3.2).
func (s *Service) Update(ctx context.Context, r *api.UpdateTaskRequest) (*api.Empty, error) {
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
func (s *Service) Stats(ctx context.Context, r *api.StatsRequest) (*api.StatsResponse, error) {
	c, err := s.find(ctx, r.GetID())
	if err != nil {
		return nil, err
	}
	numbers, err := c.Stats()
	if err != nil {
		return nil, err
	}
	return &api.StatsResponse{Stats: pack(numbers)}, nil
}

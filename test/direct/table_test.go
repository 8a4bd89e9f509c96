package direct

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// cell is what an operation shall do in a state: succeed and lead to another state, or fail with
// a code and a message that begins with these words.
type cell struct {
	to   string // the state afterwards; "" = as before
	code codes.Code
	text string
	// criu says that a real runtime needs CRIU for this, without which it fails and changes nothing.
	criu bool
}

// waits is the cell of a Wait that does not return.
var waits = cell{code: codes.DeadlineExceeded}

func ok() cell              { return cell{} }
func to(s string) cell      { return cell{to: s} }
func no(text string) cell   { return cell{code: codes.FailedPrecondition, text: text} }
func gone(text string) cell { return cell{code: codes.NotFound, text: text} }
func criu(c cell) cell      { c.criu = true; return c }

const (
	noTask   = "container not created: not found"
	noExec   = "process does not exist e: not found"
	finished = "process already finished: not found"
)

var initStates = []string{"created", "restored", "running", "paused", "stopped", "deleted"}

// initTable is the table of contract 3.3, with the methods that it leaves out.
var initTable = []struct {
	op    string
	cells [6]cell // in the order of initStates
}{
	{"Start", [6]cell{
		to("running"), criu(to("running")), no("cannot start a running process"),
		no("cannot start a paused process"), no("cannot start a stopped process"), gone(noTask),
	}},
	{"Pause", [6]cell{
		no("cannot pause task in created state"), no("cannot pause task in created state"), to("paused"),
		no("cannot pause a paused container"), no("cannot pause a stopped container"), gone(noTask),
	}},
	{"Resume", [6]cell{
		no("cannot resume task in created state"), no("cannot resume task in created state"),
		no("cannot resume a running process"), to("running"), no("cannot resume a stopped container"), gone(noTask),
	}},
	{"Kill 0", [6]cell{ok(), no("process not created"), ok(), ok(), gone(finished), gone(noTask)}},
	{"Kill 9", [6]cell{
		to("stopped"), no("process not created"), to("stopped"), to("stopped"), gone(finished), gone(noTask),
	}},
	{"Kill 9 all", [6]cell{
		to("stopped"), no("process not created"), to("stopped"), to("stopped"), ok(), gone(noTask),
	}},
	{"Exec", [6]cell{
		ok(), no("cannot exec in a created state"), ok(), no("cannot exec in a paused state"),
		no("cannot exec in a stopped state"), gone(noTask),
	}},
	{"Update", [6]cell{
		ok(), no("cannot update a created container"), ok(), ok(), no("cannot update a stopped container"), gone(noTask),
	}},
	{"Checkpoint", [6]cell{
		no("cannot checkpoint a task in created state"), no("cannot checkpoint a task in created state"),
		criu(ok()), criu(ok()), no("cannot checkpoint a stopped container"), gone(noTask),
	}},
	{"Delete", [6]cell{
		to("deleted"), to("deleted"), no("cannot delete a running process"), no("cannot delete a paused process"),
		to("deleted"), gone(noTask),
	}},
	{"ResizePty", [6]cell{ok(), ok(), ok(), ok(), no("cannot resize a stopped container"), gone(noTask)}},
	{"CloseIO", [6]cell{ok(), ok(), ok(), ok(), ok(), gone(noTask)}},
	{"State", [6]cell{ok(), ok(), ok(), ok(), ok(), gone(noTask)}},
	{"Wait", [6]cell{waits, waits, waits, waits, ok(), gone(noTask)}},
	{"Pids", [6]cell{ok(), ok(), ok(), ok(), ok(), gone(noTask)}},
	{"Connect", [6]cell{ok(), ok(), ok(), ok(), ok(), ok()}},
	{"Shutdown", [6]cell{ok(), ok(), ok(), ok(), ok(), ok()}},
}

var execStates = []string{"created", "failed", "running", "stopped", "deleted"}

// execTable is the same for an exec of a running container.
var execTable = []struct {
	op    string
	cells [5]cell // in the order of execStates
}{
	{"Start", [5]cell{
		to("running"), no("cannot start a failed process"), no("cannot start a running process"),
		no("cannot start a stopped process"), gone(noExec),
	}},
	{"Kill 0", [5]cell{no("process not created"), no("process not created"), ok(), gone(finished), gone(noExec)}},
	{"Kill 9", [5]cell{no("process not created"), no("process not created"), to("stopped"), gone(finished), gone(noExec)}},
	{"Kill 9 all", [5]cell{no("process not created"), no("process not created"), to("stopped"), gone(finished), gone(noExec)}},
	{"Exec", [5]cell{
		{code: codes.AlreadyExists, text: "id e: already exists"}, {code: codes.AlreadyExists, text: "id e: already exists"},
		{code: codes.AlreadyExists, text: "id e: already exists"}, {code: codes.AlreadyExists, text: "id e: already exists"},
		to("created"),
	}},
	{"Delete", [5]cell{
		to("deleted"), to("deleted"), no("cannot delete a running process"), to("deleted"), gone(noExec),
	}},
	{"ResizePty", [5]cell{
		ok(), no("cannot resize a failed container"), ok(), no("cannot resize a stopped container"), gone(noExec),
	}},
	{"CloseIO", [5]cell{ok(), ok(), ok(), ok(), gone(noExec)}},
	{"State", [5]cell{ok(), ok(), ok(), ok(), gone(noExec)}},
	{"Wait", [5]cell{waits, ok(), waits, ok(), gone(noExec)}},
}

func TestEveryOperationInEveryState(t *testing.T) {
	scripted(t, func(t *testing.T) { wholeTable(newLab(t, labConfig{options: fake(), bundle: sleeper()}), true) })
	t.Run("real", func(t *testing.T) {
		_, err := exec.LookPath("criu")
		wholeTable(newLab(t, labConfig{bundle: sleeper()}), err == nil)
	})
}

func wholeTable(l *lab, canRestore bool) {
	g := &grid{lab: l, criu: canRestore}
	l.history = firstLives
	l.run("c1", nil) // so that Shutdown is ignored all the time
	for i, state := range initStates {
		g.drop()
		for _, row := range initTable {
			g.check(state, row.op, row.cells[i])
		}
	}
	g.drop()
	for i, state := range execStates {
		g.drop()
		g.exec = "e"
		for _, row := range execTable {
			g.check(state, row.op, row.cells[i])
		}
	}
	g.drop()
	l.finish("c1")
	l.t.Logf("%d cells\n%s", g.cells, g.log.String())
}

// grid goes through a table. It keeps a process for as long as that stays in the state.
type grid struct {
	*lab
	criu  bool   // checkpoints work
	id    string // of the container at hand; "" = none
	exec  string // the exec in question, or "" for the init process
	n     int    // containers so far
	log   strings.Builder
	cells int
}

func (g *grid) check(state, op string, want cell) {
	g.t.Helper()
	if g.id == "" {
		g.build(state)
	}
	if want.criu && !g.criu {
		want = cell{code: codes.Unknown, text: "OCI runtime "}
	}
	err := g.call(op, want.code == codes.DeadlineExceeded)
	code, text := status.Code(err), ""
	if err != nil {
		text = err.Error()
	}
	who := "init"
	if g.exec != "" {
		who = "exec"
	}
	fmt.Fprintf(&g.log, "%-4s %-8s %-10s %-18s %s\n", who, state, op, code, text)
	g.cells++
	if code != want.code || !strings.HasPrefix(text, want.text) {
		g.t.Errorf("%s of %s %s: %s %q, want %s %q", op, state, who, code, text, want.code, want.text)
	}
	if want.to == "" {
		want.to = state
	}
	if now := g.now(want.to); now != want.to {
		g.t.Errorf("%s of %s %s: it is %s afterwards, want %s", op, state, who, now, want.to)
		g.drop()
	} else if now != state {
		g.drop()
	}
}

// call makes one call. One that blocks is given a moment, and shall be answered DeadlineExceeded.
func (g *grid) call(op string, blocks bool) error {
	ctx := within(g.t)
	if blocks {
		// The shim gets the deadline too, and shall be the one that answers.
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		ctx = short
	}
	err := g.operate(ctx, op)
	if blocks && err != nil && ctx.Err() != nil {
		return status.Error(codes.DeadlineExceeded, "") // by whom, depends on who was quicker
	}
	return err
}

func (g *grid) operate(ctx context.Context, op string) (err error) {
	switch op {
	case "Start":
		_, err = g.Start(ctx, &task.StartRequest{ID: g.id, ExecID: g.exec})
	case "Pause":
		_, err = g.Pause(ctx, &task.PauseRequest{ID: g.id})
	case "Resume":
		_, err = g.Resume(ctx, &task.ResumeRequest{ID: g.id})
	case "Kill 0":
		_, err = g.Kill(ctx, &task.KillRequest{ID: g.id, ExecID: g.exec})
	case "Kill 9":
		_, err = g.Kill(ctx, &task.KillRequest{ID: g.id, ExecID: g.exec, Signal: 9})
	case "Kill 9 all":
		_, err = g.Kill(ctx, &task.KillRequest{ID: g.id, ExecID: g.exec, Signal: 9, All: true})
	case "Exec":
		id := g.exec
		if id == "" {
			id = "other"
			defer func() { // makes way for the next time
				if err == nil {
					g.mustDelete(g.id, id)
				}
			}()
		}
		err = g.lab.exec(g.id, id, sleeper(), nil)
	case "Update":
		_, err = g.Update(ctx, &task.UpdateTaskRequest{ID: g.id, Resources: &anypb.Any{Value: []byte(`{"pids":{"limit":1000}}`)}})
	case "Checkpoint":
		_, err = g.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: g.id, Path: filepath.Join(g.dir, g.id+"-image")})
	case "Delete":
		_, err = g.Delete(ctx, &task.DeleteRequest{ID: g.id, ExecID: g.exec})
	default:
		return g.ask(ctx, op)
	}
	return err
}

// ask makes the calls that change nothing.
func (g *grid) ask(ctx context.Context, op string) (err error) {
	switch op {
	case "ResizePty":
		_, err = g.ResizePty(ctx, &task.ResizePtyRequest{ID: g.id, ExecID: g.exec, Width: 80, Height: 25})
	case "CloseIO":
		_, err = g.CloseIO(ctx, &task.CloseIORequest{ID: g.id, ExecID: g.exec, Stdin: true})
	case "State":
		_, err = g.State(ctx, &task.StateRequest{ID: g.id, ExecID: g.exec})
	case "Wait":
		_, err = g.Wait(ctx, &task.WaitRequest{ID: g.id, ExecID: g.exec})
	case "Pids":
		_, err = g.Pids(ctx, &task.PidsRequest{ID: g.id})
	case "Connect":
		_, err = g.Connect(ctx, &task.ConnectRequest{ID: g.id})
	case "Shutdown":
		// The shim ignores it as long as it has a container, and c1 is always there.
		_, err = g.Shutdown(ctx, &task.ShutdownRequest{ID: g.id})
	default:
		g.t.Fatalf("unknown operation %q", op)
	}
	return err
}

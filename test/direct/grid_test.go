package direct

import (
	"errors"
	"os"
	"path/filepath"

	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
)

// build makes a process that is in a state: a container, or an exec of one that runs.
func (g *grid) build(state string) {
	g.t.Helper()
	g.n++
	g.id = "x" + string(rune('a'+g.n/26)) + string(rune('a'+g.n%26))
	g.bundle(g.id, sleeper())
	if g.exec != "" {
		g.run(g.id, nil)
		g.buildExec(state)
		return
	}
	if state == "restored" {
		g.restored()
		return
	}
	g.mustCreate(g.id, nil)
	switch state {
	case "running":
		g.mustStart(g.id, "")
	case "paused":
		g.mustStart(g.id, "")
		g.pause(g.id)
	case "stopped":
		g.kill(g.id, "", 9)
		g.wait(g.id, "")
	case "deleted":
		g.mustDelete(g.id, "")
	}
}

// restored creates a container from a checkpoint.
func (g *grid) restored() {
	g.t.Helper()
	image := filepath.Join(g.dir, g.id+"-image")
	if err := os.Mkdir(image, 0o700); err != nil {
		g.t.Fatal(err)
	}
	r := g.createRequest(g.id, nil)
	r.Checkpoint = image
	a, err := g.Create(within(g.t), r)
	if err != nil {
		g.t.Fatalf("create from a checkpoint: %v", err)
	}
	if a.GetPid() != 0 {
		g.t.Errorf("created from a checkpoint with pid %d, want 0", a.GetPid())
	}
}

func (g *grid) buildExec(state string) {
	g.t.Helper()
	cfg := sleeper()
	if state == "failed" {
		cfg = client.BundleConfig{Args: []string{"/no/such/program"}}
		g.script(g.id, map[string]step{"exec": {"error": "exec failed: no such program"}})
	}
	g.mustExec(g.id, g.exec, cfg, nil)
	switch state {
	case "running":
		g.mustStart(g.id, g.exec)
	case "stopped":
		g.mustStart(g.id, g.exec)
		g.kill(g.id, g.exec, 9)
		g.wait(g.id, g.exec)
	case "deleted":
		g.mustDelete(g.id, g.exec)
	case "failed":
		if _, err := g.start(g.id, g.exec); err == nil {
			g.t.Fatal("an exec of a missing program was started")
		}
	}
}

// now returns the state the process is in, in the words of the tables. A state that is on its way,
// as after a kill, is waited for; want names it. The words say more than the wire does.
func (g *grid) now(want string) string {
	g.t.Helper()
	if want == "stopped" {
		g.wait(g.id, g.exec)
	}
	a, err := g.State(within(g.t), &task.StateRequest{ID: g.id, ExecID: g.exec})
	if errors.Is(err, errdefs.ErrNotFound) {
		return "deleted"
	}
	if err != nil {
		g.t.Fatalf("state: %v", err)
	}
	switch a.GetStatus() {
	case tasktypes.Status_CREATED:
		if want == "restored" || want == "failed" {
			return want
		}
		return "created"
	case tasktypes.Status_RUNNING:
		return "running"
	case tasktypes.Status_PAUSED:
		return "paused"
	case tasktypes.Status_STOPPED:
		return "stopped"
	}
	return a.GetStatus().String()
}

// firstLives leaves out that an exec id was added again: execs have no event of their deletion, so
// the order check cannot know that it was free.
func firstLives(all []client.Event) []client.Event {
	var events []client.Event
	added := map[string]bool{}
	for _, e := range all {
		if e.Topic == "/tasks/exec-added" {
			key := e.Task() + " " + e.Exec()
			if added[key] {
				continue
			}
			added[key] = true
		}
		events = append(events, e)
	}
	return events
}

// drop ends the container at hand, if there is one, so that the next one is built anew.
func (g *grid) drop() {
	g.t.Helper()
	id := g.id
	g.id = ""
	if id == "" {
		return
	}
	_, err := g.State(within(g.t), &task.StateRequest{ID: id})
	if errors.Is(err, errdefs.ErrNotFound) {
		return
	}
	if g.exec != "" {
		// With a fake runtime there is no kernel that ends it together with the init process.
		if _, err := g.Kill(within(g.t), &task.KillRequest{ID: id, ExecID: g.exec, Signal: 9}); err == nil {
			g.wait(id, g.exec)
		}
	}
	if _, err := g.Kill(within(g.t), &task.KillRequest{ID: id, Signal: 9}); err == nil {
		g.wait(id, "")
	}
	g.mustDelete(id, "")
}

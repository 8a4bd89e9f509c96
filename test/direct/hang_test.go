package direct

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
)

const (
	prompt   = 10 * time.Millisecond // what an answer is to take
	tolerant = time.Second           // what it may take here, since machines are shared
	samples  = 5
)

// hang is a call that hangs because the runtime does.
type hang struct {
	verb    string
	fake    bool         // the runtime is not a real one that a script holds up, but a fake one
	prepare func(l *lab) // brings the container h to the state in which the call is allowed
	call    func(ctx context.Context, l *lab) error
}

var hangs = []hang{
	{"start", false, func(l *lab) { l.mustCreate("h", nil) }, func(ctx context.Context, l *lab) error {
		_, err := l.Start(ctx, &task.StartRequest{ID: "h"})
		return err
	}},
	{"exec", false, func(l *lab) {
		l.run("h", nil)
		l.mustExec("h", "e", sleeper(), nil)
	}, func(ctx context.Context, l *lab) error {
		_, err := l.Start(ctx, &task.StartRequest{ID: "h", ExecID: "e"})
		return err
	}},
	{"pause", false, func(l *lab) { l.run("h", nil) }, func(ctx context.Context, l *lab) error {
		_, err := l.Pause(ctx, &task.PauseRequest{ID: "h"})
		return err
	}},
	{"resume", false, func(l *lab) {
		l.run("h", nil)
		l.pause("h")
	}, func(ctx context.Context, l *lab) error {
		_, err := l.Resume(ctx, &task.ResumeRequest{ID: "h"})
		return err
	}},
	{"update", false, func(l *lab) { l.run("h", nil) }, func(ctx context.Context, l *lab) error {
		_, err := l.Update(ctx, &task.UpdateTaskRequest{ID: "h", Resources: &anypb.Any{Value: []byte("{}")}})
		return err
	}},
	{"checkpoint", true, func(l *lab) { l.run("h", nil) }, func(ctx context.Context, l *lab) error {
		_, err := l.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: "h", Path: l.dir + "/image"})
		return err
	}},
	{"kill", true, func(l *lab) { l.run("h", nil) }, func(ctx context.Context, l *lab) error {
		// By the runtime, as h has no control group of its own.
		_, err := l.Kill(ctx, &task.KillRequest{ID: "h", Signal: 9, All: true})
		return err
	}},
	{"delete", false, func(l *lab) {
		l.run("h", nil)
		l.kill("h", "", 9)
		l.wait("h", "")
	}, func(ctx context.Context, l *lab) error {
		_, err := l.Delete(ctx, &task.DeleteRequest{ID: "h"})
		return err
	}},
}

// While a runtime command hangs, everything else is answered as if it did not.
func TestOthersAreAnsweredWhileTheRuntimeHangs(t *testing.T) {
	for _, h := range hangs {
		t.Run(h.verb, func(t *testing.T) {
			l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
			l.script("c1", map[string]step{"*": {"real": "runc"}})
			l.run("c1", nil)
			l.bundle("h", sleeper())
			held := map[string]step{h.verb: {"pause": "begin"}}
			if !h.fake {
				l.script("h", map[string]step{"*": {"real": "runc"}})
				held = map[string]step{"*": {"real": "runc"}, h.verb: {"real": "runc", "pause": "begin"}}
			}
			h.prepare(l)
			l.script("h", held)
			done := make(chan error, 1)
			go func() { done <- h.call(within(t), l) }()
			l.reached("h", h.verb, "begin")
			l.measure(h)
			select {
			case err := <-done:
				t.Fatalf("%s did not hang: %v", h.verb, err)
			default:
			}
			l.release("h", h.verb, "begin")
			if err := <-done; err != nil && h.verb != "start" && h.verb != "exec" {
				// A start was killed meanwhile, and may say so.
				t.Errorf("%s after the hang: %v", h.verb, err)
			}
			l.end1(h.verb)
		})
	}
}

// measure asks whatever must not wait for a runtime command, of h and of its neighbour.
func (l *lab) measure(h hang) {
	l.t.Helper()
	verb := h.verb
	for _, id := range []string{"h", "c1"} {
		for _, q := range quick(l, id) {
			if dead := verb == "delete" && q.name == "Kill"; id == "h" && (dead || h.fake && q.name == "Stats") {
				continue // a fake container has no control group
			}
			var took []time.Duration
			for range samples {
				began := time.Now()
				if err := q.ask(within(l.t)); err != nil {
					l.t.Errorf("while %s hangs: %s of %s: %v", verb, q.name, id, err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			median := took[samples/2]
			l.t.Logf("while %-10s hangs, %-7s of %-2s takes %v", verb, q.name, id, median.Round(time.Microsecond))
			// The best of them shows that nothing is waited for; the others may have waited for the CPU.
			if took[0] > prompt || median > tolerant {
				l.t.Errorf("while %s hangs: %s of %s takes %v, want %v", verb, q.name, id, took, prompt)
			}
		}
	}
}

type question struct {
	name string
	ask  func(ctx context.Context) error
}

func quick(l *lab, id string) []question {
	return []question{
		{"State", func(ctx context.Context) error { _, err := l.State(ctx, &task.StateRequest{ID: id}); return err }},
		{"Connect", func(ctx context.Context) error {
			a, err := l.Connect(ctx, &task.ConnectRequest{ID: id})
			if err == nil && a.GetTaskPid() == 0 {
				return fmt.Errorf("no pid in %v", a)
			}
			return err
		}},
		{"Pids", func(ctx context.Context) error {
			a, err := l.Pids(ctx, &task.PidsRequest{ID: id})
			if err == nil && len(a.GetProcesses()) == 0 {
				return fmt.Errorf("no pids")
			}
			return err
		}},
		{"Stats", func(ctx context.Context) error { _, err := l.Stats(ctx, &task.StatsRequest{ID: id}); return err }},
		{"Kill", func(ctx context.Context) error {
			_, err := l.Kill(ctx, &task.KillRequest{ID: id, Signal: 0})
			return err
		}},
	}
}

// end1 ends what is left of h, which some hangs have ended, and then c1.
func (l *lab) end1(verb string) {
	l.t.Helper()
	if verb == "exec" {
		l.kill("h", "e", 9)
		l.wait("h", "e")
	}
	if verb != "delete" {
		if verb != "kill" {
			l.kill("h", "", 9)
		}
		l.wait("h", "")
		l.mustDelete("h", "")
	}
	l.finish("c1")
}

// A kill works, and its effect is told to a waiter, while the runtime hangs. The event of the exit
// waits for its turn, so that it follows that of the start.
func TestKillAndWaitOfANeighbourWhileTheRuntimeHangs(t *testing.T) {
	for _, verb := range []string{"create", "start", "delete"} {
		t.Run(verb, func(t *testing.T) {
			l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
			l.run("c1", nil)
			l.bundle("h", sleeper())
			call := func() error { _, err := l.start("h", ""); return err }
			switch verb {
			case "create":
				call = func() error { _, err := l.create("h", nil); return err }
			case "start":
				l.mustCreate("h", nil)
			case "delete":
				l.run("h", nil)
				l.kill("h", "", 9)
				l.wait("h", "")
				call = func() error { _, err := l.Delete(within(t), &task.DeleteRequest{ID: "h"}); return err }
			}
			l.script("h", map[string]step{verb: {"pause": "begin"}})
			done := make(chan error, 1)
			go func() { done <- call() }()
			l.reached("h", verb, "begin")
			began := time.Now()
			l.kill("c1", "", 9)
			if got := l.wait("c1", ""); got != 137 {
				t.Errorf("exit status %d", got)
			}
			l.event(client.Exits("c1", ""))
			l.mustDelete("c1", "")
			took := time.Since(began)
			t.Logf("killed, waited for and deleted in %v", took)
			if took > tolerant {
				t.Errorf("it took %v", took)
			}
			l.release("h", verb, "begin")
			if err := <-done; err != nil {
				t.Errorf("%s: %v", verb, err)
			}
			if verb != "delete" {
				l.finish("h")
			}
		})
	}
}

// Clients ask for a task while it is being created, and give up for good on NotFound: they wait
// (managers.md, surprise 3). They do not wait for ever.
func TestRequestsWaitForACreateInFlight(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.script("c1", map[string]step{"create": {"pause": "born"}})
	done := make(chan error, 1)
	go func() { _, err := l.create("c1", nil); done <- err }()
	l.reached("c1", "create", "born")

	began := time.Now()
	_, err := l.State(within(t), &task.StateRequest{ID: "c1"})
	is(t, "state of a create that hangs", err, errdefs.ErrNotFound)
	took := time.Since(began)
	t.Logf("a state that waits in vain takes %v", took)
	if took < time.Second || took > 4*time.Second {
		t.Errorf("state waited %v for the create, want about 1.5s", took)
	}
	_, err = l.create("c1", nil)
	is(t, "second create", err, errdefs.ErrAlreadyExists)

	answers := make(chan error, 3)
	go func() { _, err := l.State(within(t), &task.StateRequest{ID: "c1"}); answers <- err }()
	go func() { _, err := l.CloseIO(within(t), &task.CloseIORequest{ID: "c1", Stdin: true}); answers <- err }()
	go func() { _, err := l.Pids(within(t), &task.PidsRequest{ID: "c1"}); answers <- err }()
	select {
	case err := <-answers:
		t.Errorf("an answer while the create is under way: %v", err)
	case <-time.After(200 * time.Millisecond): // the time in which one would have come
	}
	l.release("c1", "create", "born")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := <-answers; err != nil {
			t.Errorf("a request that came during the create: %v", err)
		}
	}
	l.finish("c1")
}

// A client may go away in the middle of a create; the work is finished all the same.
func TestCreateIsFinishedWhenItsClientHangsUp(t *testing.T) {
	l := newLab(t, labConfig{options: fake(), bundle: sleeper()})
	l.script("c1", map[string]step{"create": {"pause": "born"}})
	other, err := client.Dial(within(t), l.Result.Address)
	if err != nil {
		t.Fatal(err)
	}
	other.Namespace = l.name
	done := make(chan error, 1)
	go func() { _, err := other.Create(within(t), l.createRequest("c1", nil)); done <- err }()
	l.reached("c1", "create", "born")
	other.Close()
	if err := <-done; err == nil {
		t.Error("an answer on a closed connection")
	}
	l.release("c1", "create", "born")
	l.eventually("c1 is created", func() bool {
		a, err := l.State(within(t), &task.StateRequest{ID: "c1"})
		return err == nil && a.GetStatus() == tasktypes.Status_CREATED
	})
	l.mustStart("c1", "")
	l.finish("c1")
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"

	"holdfast/internal/facts"
)

// detached runs a container and leaves it running until the end of the test.
func detached(t *testing.T, runtime string) (id string) {
	t.Helper()
	needRoot(t)
	id = "look-" + rand.Text()
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--runtime", runtime, "--id", id)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
			if r := runHoldfast(t, "", verb, id); r.status != 0 {
				t.Errorf("%s: %+v", verb, r)
			}
		}
		leftNothing(t, tmp)
	})
	return id
}

func TestShimTellsOfItself(t *testing.T) {
	id := detached(t, "runc")
	if r := runHoldfast(t, "", "exec", id, "true"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	var f facts.Facts
	r := runHoldfast(t, "", "inspect", id)
	if err := json.Unmarshal([]byte(r.stdout), &f); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if f.Pid == 0 || f.Version == "" || time.Since(f.Began) > time.Hour || len(f.Containers) != 1 || len(f.Requests) != 0 {
		t.Errorf("the shim: %+v", f)
	}
	if c := f.Containers[0]; c.ID != id || c.State != "running" || c.Pid == 0 || c.Bundle == "" {
		t.Errorf("the container: %+v", c)
	}
	// run -d takes events until it ends, so those of the exec wait. Whether it has taken those before is a race.
	r = runHoldfast(t, "", "events", id)
	inOrder(t, r.stdout, "LOGGED", "/tasks/create", "/tasks/start", "waits", "/tasks/exec-added", "waits", "/tasks/exec-started", "waits", "/tasks/exit")
	lines := runHoldfast(t, "", "events", "--json", id).stdout
	var exited struct {
		Topic string
		Taken time.Time
		Event struct{ ContainerID, ID string }
	}
	all := strings.Split(strings.TrimSpace(lines), "\n")
	if err := json.Unmarshal([]byte(all[len(all)-1]), &exited); err != nil || len(all) != strings.Count(r.stdout, "\n")-1 {
		t.Fatalf("%v: %s", err, lines)
	}
	if exited.Topic != "/tasks/exit" || !exited.Taken.IsZero() || exited.Event.ContainerID != id || exited.Event.ID == id {
		t.Errorf("%+v", exited)
	}
	r = runHoldfast(t, "", "timeline", id)
	inOrder(t, r.stdout, "create-1", "runtime create ", "create-6", "event /tasks/start ", "exec-1", "runtime exec ", "exec-4", "execexit-3")
	var trace struct{ TraceEvents []traceEvent }
	names := 2 * 2 // two rows for the first process, two for the exec
	if err := json.Unmarshal([]byte(runHoldfast(t, "", "timeline", "--trace", id).stdout), &trace); err != nil || len(trace.TraceEvents) != strings.Count(r.stdout, "\n")-1+names {
		t.Errorf("%d events in the trace: %v", len(trace.TraceEvents), err)
	}
	if r := runHoldfast(t, "", "stacks", id); !strings.Contains(r.stdout, "goroutine ") || !strings.Contains(r.stdout, "ttrpc") {
		t.Errorf("stacks: %+v", r)
	}
	if r := runHoldfast(t, "", "why", id); !strings.Contains(r.stdout, "nothing: its first process is running") {
		t.Errorf("why: %+v", r)
	}
}

// inOrder checks that text has the words, one after the other.
func inOrder(t *testing.T, text string, words ...string) {
	t.Helper()
	at := 0
	for _, word := range words {
		next := strings.Index(text[at:], word)
		if next < 0 {
			t.Fatalf("no %q, or too early:\n%s", word, text)
		}
		at += next + len(word)
	}
}

// TestEventsAreFollowed has events come while they are watched, each printed when it comes and when it is taken, until
// the shim ends and has told of all.
func TestEventsAreFollowed(t *testing.T) {
	needRoot(t)
	id := "follow-" + rand.Text()
	begin, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--id", id)
	if out, err := begin.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer leftNothing(t, tmp)
	follow, _ := holdfast(t, deadline(t, runLimit), "events", "--follow", id)
	var said bytes.Buffer
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func(word string) {
		t.Helper()
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), word) {
				return
			}
		}
		t.Fatalf("no %q: %s", word, &said)
	}
	next("/tasks/start")
	if r := runHoldfast(t, "", "exec", "--exec", "e1", id, "true"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	next("/tasks/exec-started")
	next(" e1 ")
	for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
		if r := runHoldfast(t, "", verb, id); r.status != 0 {
			t.Errorf("%s: %+v", verb, r)
		}
	}
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
	}
	if err := follow.Wait(); err != nil {
		t.Error(err)
	}
	for topic, times := range map[string]int{"create": 1, "start": 1, "exec-added": 1, "exec-started": 1, "exit": 2, "delete": 1} {
		fates := map[string]int{}
		for line := range strings.Lines(said.String()) {
			if strings.Contains(line, " /tasks/"+topic+" ") {
				fates[strings.Fields(line)[1]]++
			}
		}
		// run -d had a manager that took what came before its end.
		if fates["taken"] != times || fates["waits"] > times || len(fates) > 2 || topic == "delete" && fates["waits"] != 1 {
			t.Errorf("%s has %v:\n%s", topic, fates, &said)
		}
	}
}

// TestFollowerThatIsKilledLeavesNothing looks at the shim's goroutines.
func TestFollowerThatIsKilledLeavesNothing(t *testing.T) {
	needRoot(t)
	id := "gone-" + rand.Text()
	begin, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--id", id)
	if out, err := begin.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer leftNothing(t, tmp)
	follow, _ := holdfast(t, deadline(t, runLimit), "events", "--follow", id)
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	follows := func() bool { return strings.Contains(runHoldfast(t, "", "stacks", id).stdout, "EventLog).follow") }
	waitUntil(t, "it follows", follows)
	if r := runHoldfast(t, "", "inspect", id); r.status != 0 || strings.Contains(r.stdout, `"op": "Events"`) {
		t.Errorf("who follows is a request among others: %+v", r)
	}
	if err := follow.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = follow.Wait() // it was killed
	waitUntil(t, "it has gone", func() bool { return !follows() })
	for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
		if r := runHoldfast(t, "", verb, id); r.status != 0 {
			t.Errorf("%s: %+v", verb, r)
		}
	}
}

// A runtime that hangs is found, though the shim's turn is taken.
func TestWhyNamesTheCommandThatHangs(t *testing.T) {
	slow, begun := filepath.Join(t.TempDir(), "slow"), filepath.Join(t.TempDir(), "begun")
	script := "#!/bin/sh\ncase \" $* \" in *\" exec \"*) >" + begun + "; sleep 2;; esac\nexec runc \"$@\"\n"
	if err := os.WriteFile(slow, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	id := detached(t, slow)
	cmd, _ := holdfast(t, deadline(t, runLimit), "exec", "--exec", "e1", id, "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(runLimit); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(begun); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the exec does not begin")
		}
	}
	said := runHoldfast(t, "", "why", id).stdout
	for _, want := range []string{"Start of exec e1 has not been answered for ", "the shim waits for \"", " exec --process ", "(sleep)",
		"the start of exec e1 is under way for ", "and what else would change that process waits for it"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q: %s", want, said)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Other shims have no such service, and the verbs say what else there is.
func TestOtherShimsCannotBeLookedInto(t *testing.T) {
	address := serveNothing(t)
	for _, verb := range []string{"inspect", "events", "stacks", "timeline", "why"} {
		r := runHoldfast(t, "", verb, "--address", address, "c1")
		if r.status != exitFailed || !strings.Contains(r.stderr, "it is not holdfast's") {
			t.Errorf("%s: %+v", verb, r)
		}
	}
}

func TestReasonsArePlain(t *testing.T) {
	now := time.Unix(1000, 0)
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	box := facts.Facts{Containers: []facts.Container{{ID: "c1", State: "running", Pid: os.Getpid()}, {ID: "c2"}}}
	busy := box
	busy.Requests = []facts.Request{
		{Op: "Wait", ID: "c1", Since: before(time.Hour)},
		{Op: "Kill", ID: "c1", Since: before(3 * time.Second)},
		{Op: "Delete", ID: "c2", Exec: "e", Since: before(time.Second)},
	}
	busy.Events = []facts.Event{
		{Topic: "/tasks/create", At: before(time.Hour), Taken: before(time.Hour)}, {Topic: "/tasks/exit", At: before(time.Minute)},
	}
	hung := command{args: []string{"runc", "kill", "c1"}}
	for _, row := range []struct {
		f    facts.Facts
		id   string
		want []string
	}{
		{box, "c1", []string{"nothing: its first process is running, and no request or command is under way"}},
		{box, "c2", []string{"nothing: its first process is being created, and no request or command is under way"}},
		{box, "c3", []string{"the shim has no container c3"}},
		{busy, "c1", []string{
			"Kill has not been answered for 3s", `the shim waits for "runc kill c1": it had no processes left`,
			"events wait for the manager: 1, the oldest, /tasks/exit, for 1m0s; is the manager away?",
		}},
		{busy, "c2", []string{"Delete of exec e has not been answered for 1s", "events wait for the manager: 1, the oldest, /tasks/exit, for 1m0s; is the manager away?"}},
	} {
		var commands []command
		if len(row.f.Requests) > 0 {
			commands = append(commands, hung)
		}
		if got := reasons(row.f, row.id, commands, now); strings.Join(got, "\n") != strings.Join(row.want, "\n") {
			t.Errorf("%s: %q, want %q", row.id, got, row.want)
		}
	}
}

func TestTraceHasDurations(t *testing.T) {
	at := time.UnixMicro(1e6)
	steps := []facts.Step{
		{At: at, ID: "c", Op: "start", N: 1, What: "turn taken"},
		{At: at.Add(5 * time.Millisecond), ID: "c", Op: "start", N: 2, What: "runtime has started"},
		{At: at.Add(6 * time.Millisecond), ID: "c", Exec: "e", Op: "exec", N: 1, What: "turn taken"},
		{At: at.Add(9 * time.Millisecond), ID: "c", Op: "exit", N: 1, What: "init process reaped"},
	}
	steps = append(steps,
		facts.Step{At: at.Add(time.Millisecond), ID: "c", Op: "runtime", What: "start", Took: 4 * time.Millisecond, Failed: true},
		facts.Step{At: at, ID: "other", Op: "start", N: 1, What: "turn taken"})
	var out bytes.Buffer
	if err := writeTrace(&out, 7, deedsOf(facts.Facts{Steps: steps}, "c")); err != nil {
		t.Fatal(err)
	}
	want := `{"traceEvents":[{"name":"thread_name","ph":"M","ts":0,"pid":7,"tid":0,"args":{"name":"init: steps"}},` +
		`{"name":"thread_name","ph":"M","ts":0,"pid":7,"tid":1,"args":{"name":"init: commands, waits, events"}},` +
		`{"name":"start-1 turn taken","ph":"X","ts":1000000,"pid":7,"tid":0},` +
		`{"name":"runtime start (failed)","ph":"X","ts":1001000,"dur":4000,"pid":7,"tid":1},` +
		`{"name":"start-2 runtime has started","ph":"X","ts":1000000,"dur":5000,"pid":7,"tid":0},` +
		`{"name":"thread_name","ph":"M","ts":0,"pid":7,"tid":2,"args":{"name":"e: steps"}},` +
		`{"name":"thread_name","ph":"M","ts":0,"pid":7,"tid":3,"args":{"name":"e: commands, waits, events"}},` +
		`{"name":"exec-1 turn taken","ph":"X","ts":1006000,"pid":7,"tid":2},` +
		`{"name":"exit-1 init process reaped","ph":"X","ts":1009000,"pid":7,"tid":0}]}` + "\n"
	if out.String() != want {
		t.Errorf("got %s", &out)
	}
}

// serveNothing serves the task service as far as a dial needs it.
func serveNothing(t *testing.T) (address string) {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.Register("containerd.task.v3.Task", map[string]ttrpc.Method{
		"Connect": func(context.Context, func(any) error) (any, error) {
			return &task.ConnectResponse{Version: "other"}, nil
		},
	})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }() // until Close
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "unix://" + path
}

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// verbs are the things that people do with ctr, one at a time.
var verbs = []struct {
	name string
	test func(t *testing.T, c *containerd, r runtime)
}{
	{"run --rm", testRun},
	{"run -d", testRunDetached},
	{"run -t", testRunTerminal},
	{"exec", testExec},
	{"exec -t", testExecTerminal},
	{"kill", testKill},
	{"pause and resume", testPause},
	{"update", testUpdate},
	{"ps", testProcesses},
	{"metrics", testMetrics},
	{"events", testEvents},
	{"out of memory", testOOM},
	{"rm -f", testRemove},
	{"missing entrypoint", testMissingEntrypoint},
	{"missing exec", testMissingExec},
	{"same id twice", testSameID},
}

func TestTasks(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		for _, r := range c.runtimes() {
			t.Run(r.name, func(t *testing.T) {
				for _, verb := range verbs {
					t.Run(verb.name, func(t *testing.T) { verb.test(t, c, r) })
				}
			})
		}
	})
}

func testRun(t *testing.T, c *containerd, r runtime) {
	id := c.id()
	got := c.ctr(t, "run", "--rm", "--runtime", r.flag, image, id,
		"sh", "-c", "echo to stdout; echo to stderr >&2; exit 7")
	if diff := cmp.Diff(result{"to stdout\n", "to stderr\n", 7}, got); diff != "" {
		t.Error(diff)
	}
	c.events.await(t, id, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
	if got := c.events.exit(t, id, id).ExitStatus; got != 7 {
		t.Errorf("the exit event says %d, want 7", got)
	}
}

func testRunDetached(t *testing.T, c *containerd, r runtime) {
	id, pid := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	if got := c.task(t, id).status; got != "RUNNING" {
		t.Errorf("status: got %s, want RUNNING", got)
	}
	shim := parent(t, pid)
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", shim))
	if err != nil {
		t.Fatal(err)
	}
	if exe != r.binary {
		t.Errorf("the parent of init is %s, want %s", exe, r.binary)
	}
	c.ok(t, "task", "kill", "-s", "KILL", id)
	if got := c.events.exit(t, id, id); got.ExitStatus != 137 || int(got.Pid) != pid {
		t.Errorf("exit event: %v; want status 137 of pid %d", got, pid)
	}
	c.status(t, id, "STOPPED")
	c.delete(t, id, 137)
	eventually(t, func() error {
		if alive(shim) {
			return fmt.Errorf("shim %d outlives its container", shim)
		}
		return nil
	})
}

func testRunTerminal(t *testing.T, c *containerd, r runtime) {
	// ctr tells the size after it has started the container, so at first there may be none.
	p := c.onTerminal(t, 33, 101, "run", "--rm", "-t", "--runtime", r.flag, image, c.id(),
		"sh", "-c", `trap 'stty size' WINCH; tty; stty size 2>/dev/null
		while ! read line; do :; done; echo "got $line"; exit 5`)
	p.await(t, "/dev/pts/0\n")
	p.await(t, "33 101\n")
	// And a moment later it begins to listen for further ones, so the first may be missed.
	columns := uint16(122)
	eventually(t, func() error {
		columns ^= 1
		if err := resize(p.master, 44, columns); err != nil {
			return err
		}
		if out := p.output(); !strings.Contains(out, "44 12") {
			return fmt.Errorf("the terminal does not show 44 122 or 44 123 but %q", out)
		}
		return nil
	})
	p.enter(t, "hello")
	p.await(t, "got hello\n")
	if got := p.wait(t); got != 5 {
		t.Errorf("ctr ended with %d, want 5", got)
	}
}

func testExec(t *testing.T, c *containerd, r runtime) {
	id, _ := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	got := c.ctrWith(t, "to stdin", "task", "exec", "--exec-id", "e1", id,
		"sh", "-c", "cat; echo to stderr >&2; exit 3")
	if diff := cmp.Diff(result{"to stdin", "to stderr\n", 3}, got); diff != "" {
		t.Error(diff)
	}
	if got := c.events.exit(t, id, "e1").ExitStatus; got != 3 {
		t.Errorf("the exit event says %d, want 3", got)
	}
	c.events.await(t, id, "/tasks/create", "/tasks/start",
		"/tasks/exec-added", "/tasks/exec-started", "/tasks/exit")
}

func testExecTerminal(t *testing.T, c *containerd, r runtime) {
	id, _ := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	p := c.onTerminal(t, 20, 70, "task", "exec", "-t", "--exec-id", "e1", id, "sh", "-c",
		`read line; echo "got $line"
		until s=$(stty size 2>/dev/null); [ "$s" ]; do sleep 0.1; done; echo "$s"; exit 4`)
	p.enter(t, "hello")
	p.await(t, "got hello\n20 70\n")
	if got := p.wait(t); got != 4 {
		t.Errorf("ctr ended with %d, want 4", got)
	}
}

func testKill(t *testing.T, c *containerd, r runtime) {
	id, _ := c.detached(t,
		[]string{"--runtime", r.flag, "--log-uri", "file://" + c.dir + "/kill.log"},
		"sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.1; done")
	defer c.remove(t, id)
	c.logs(t, "kill.log", "ready")
	c.ok(t, "task", "kill", id)
	if got := c.events.exit(t, id, id).ExitStatus; got != 42 {
		t.Errorf("the exit event says %d, want 42", got)
	}
	got := c.ctr(t, "task", "kill", id)
	if got.Code == 0 || !strings.Contains(got.Stderr, "process already finished: not found") {
		t.Errorf("kill of a stopped task: %+v; want process already finished: not found", got)
	}
}

func testPause(t *testing.T, c *containerd, r runtime) {
	id, _ := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	c.ok(t, "task", "pause", id)
	if got := c.task(t, id).status; got != "PAUSED" {
		t.Errorf("status after pause: got %s, want PAUSED", got)
	}
	c.ok(t, "task", "resume", id)
	if got := c.task(t, id).status; got != "RUNNING" {
		t.Errorf("status after resume: got %s, want RUNNING", got)
	}
	c.events.await(t, id, "/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed")
	if got := c.ok(t, "task", "exec", "--exec-id", "e1", id, "echo", "thawed"); got != "thawed\n" {
		t.Errorf("exec after resume printed %q", got)
	}
}

// testUpdate speaks to containerd's API, since ctr has no command for it.
func testUpdate(t *testing.T, c *containerd, r runtime) {
	id, pid := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	limit := int64(64 << 20)
	resources := &anypb.Any{
		TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
		Value:   encode(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}),
	}
	_, err := tasks.NewTasksClient(c.conn).Update(inNamespace(t.Context(), c.namespace),
		&tasks.UpdateTaskRequest{ContainerID: id, Resources: resources})
	if err != nil {
		t.Fatal(err)
	}
	got := cgroupFile(t, pid, "memory", "memory.limit_in_bytes", "memory.max")
	if got != strconv.FormatInt(limit, 10) {
		t.Errorf("memory limit after update: got %s, want %d", got, limit)
	}
}

func testProcesses(t *testing.T, c *containerd, r runtime) {
	id, pid := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	p := c.onTerminal(t, 20, 70, "task", "exec", "-t", "--exec-id", "e1", id,
		"sh", "-c", "echo up; read line")
	p.await(t, "up\n")
	list := c.ok(t, "task", "ps", id)
	var pids []int
	for line := range strings.Lines(list) {
		if p, err := strconv.Atoi(strings.Fields(line)[0]); err == nil {
			pids = append(pids, p)
		}
	}
	if len(pids) != 2 || !slices.Contains(pids, pid) || !strings.Contains(list, "e1") {
		t.Errorf("got %q; want init %d and a process of exec e1", list, pid)
	}
	p.enter(t, "")
	p.wait(t)
}

func testMetrics(t *testing.T, c *containerd, r runtime) {
	id, _ := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	got := c.ok(t, "task", "metrics", id)
	for _, want := range []string{id, "memory.usage", "pids.current"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
}

func testEvents(t *testing.T, c *containerd, r runtime) {
	p := c.onTerminal(t, 24, 1000, "events")
	// ctr does not say when it is subscribed; containers come and go until it shows one.
	eventually(t, func() error {
		id := c.id()
		c.ok(t, "run", "--rm", "--null-io", "--runtime", r.flag, image, id, "true")
		out := p.output()
		for _, topic := range []string{"create", "start", "exit", "delete"} {
			if !strings.Contains(out, "/tasks/"+topic+" {\"container_id\":\""+id+"\"") {
				return fmt.Errorf("no /tasks/%s of %s in %q", topic, id, out)
			}
		}
		return nil
	})
}

func testOOM(t *testing.T, c *containerd, r runtime) {
	id := c.id()
	got := c.ctr(t, "run", "--rm", "--runtime", r.flag, "--memory-limit", "50331648", image, id,
		"sh", "-c", "x=1234567890; while :; do x=$x$x; done")
	if got.Code != 137 {
		t.Errorf("got %+v, want 137", got)
	}
	c.events.await(t, id,
		"/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete")
}

func testRemove(t *testing.T, c *containerd, r runtime) {
	id, pid := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	c.ctr(t, "task", "rm", "-f", id)
	if alive(pid) {
		t.Errorf("init %d is alive after rm -f", pid)
	}
	if got := c.task(t, id); got != (task{}) {
		t.Errorf("the task is still listed: %+v", got)
	}
	c.events.await(t, id, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
	c.ok(t, "container", "rm", id)
}

func testMissingEntrypoint(t *testing.T, c *containerd, r runtime) {
	id := c.id()
	got := c.ctr(t, "run", "--rm", "--runtime", r.flag, image, id, "no-such-program")
	for _, want := range []string{"OCI runtime create failed",
		`exec: "no-such-program": executable file not found in $PATH`} {
		if got.Code == 0 || !strings.Contains(got.Stderr, want) {
			t.Errorf("got %+v; want a failure with %q", got, want)
		}
	}
	if topics := c.events.topics(id); len(topics) > 0 {
		t.Errorf("events of a container that was never created: %v", topics)
	}
}

func testMissingExec(t *testing.T, c *containerd, r runtime) {
	id, _ := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	got := c.ctr(t, "task", "exec", "--exec-id", "e1", id, "no-such-program")
	for _, want := range []string{"OCI runtime exec failed",
		`exec: "no-such-program": executable file not found in $PATH`} {
		if got.Code == 0 || !strings.Contains(got.Stderr, want) {
			t.Errorf("got %+v; want a failure with %q", got, want)
		}
	}
	if got := c.ok(t, "task", "exec", "--exec-id", "e2", id, "echo", "fine"); got != "fine\n" {
		t.Errorf("the exec after it printed %q", got)
	}
}

func testSameID(t *testing.T, c *containerd, r runtime) {
	id, pid := c.detached(t, []string{"--runtime", r.flag}, "sleep", "1000")
	defer c.remove(t, id)
	got := c.ctr(t, "task", "start", "-d", id)
	if got.Code == 0 || !strings.Contains(got.Stderr, "already exists") {
		t.Errorf("second start: %+v; want already exists", got)
	}
	if got := c.task(t, id); got.pid != pid || got.status != "RUNNING" {
		t.Errorf("after the second start: %+v; want pid %d, running", got, pid)
	}
}

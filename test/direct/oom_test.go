package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"

	"holdfast/internal/client"
	"holdfast/oom"
)

// oomsVariable says how many processes TestEveryOOMKillIsToldOnce has killed.
const oomsVariable = "HOLDFAST_OOMS"

// memoryLimit is so little that few kills are slow, and enough for runc.
const memoryLimit = 48 << 20

// glutton needs more memory than there is, and asks for it in one go.
const glutton = "/usr/bin/dd if=/dev/zero of=/dev/null bs=200M count=1"

// oomCase is a container that loses one process for want of memory.
type oomCase struct {
	name       string
	args       []string
	exec       bool  // the process is an exec's
	limit, pod int64 // of the container and of its pod; 0 = none
	status     int   // of the init process
	cause      string
	ours       bool // the record may say that it was the container's limit,
	theirs     bool // or that it was the pod's
}

var oomCases = []oomCase{
	{name: "right after the start", args: strings.Fields(glutton), limit: memoryLimit, status: 137, cause: "oom", ours: true},
	{name: "a child, and init lives", args: sh(glutton + "; exit 3").Args, limit: memoryLimit, status: 3, ours: true},
	{name: "an exec, and init lives", args: sleeper().Args, exec: true, limit: memoryLimit, status: 137, cause: "request", ours: true},
	{name: "the pod's limit", args: strings.Fields(glutton), pod: memoryLimit, status: 137, cause: "oom", theirs: true},
	// The pod is charged for what the kernel keeps of its container, so it may reach its limit first.
	{name: "a pod of one", args: strings.Fields(glutton), limit: memoryLimit, pod: memoryLimit, status: 137, cause: "oom",
		ours: true, theirs: true},
}

// bystander is a container that is there until the end, however long hundreds of kills may take in a
// machine that is emulated.
func bystander() client.BundleConfig {
	return client.BundleConfig{Args: []string{"/bin/sleep", "infinity"}}
}

// Each kill is told once, for the right container, before its exit, and in the bundle as well.
func TestEveryOOMKillIsToldOnce(t *testing.T) {
	l := newLab(t, labConfig{id: "bystander", bundle: bystander()})
	l.run("bystander", nil)
	l.oomKills(amount(t, oomsVariable, 25), func(c oomCase) (string, string) {
		if c.pod == 0 {
			return "", ""
		}
		return l.pod("pod", c.pod)
	})
	l.finish("bystander")
}

// An exec that was killed for memory is not the reason why the init process is killed later.
func TestOOMOfAnExecIsNotThatOfInit(t *testing.T) {
	cfg := sleeper()
	cfg.MemoryLimit = memoryLimit
	l := newLab(t, labConfig{bundle: cfg})
	pid := l.run("c1", nil)
	l.runExec("c1", "e1", client.BundleConfig{Args: strings.Fields(glutton)})
	if got := l.wait("c1", "e1"); got != 137 {
		t.Errorf("the exec ended with %d", got)
	}
	l.event(func(e client.Event) bool { return e.Topic == "/tasks/oom" })
	l.mustDelete("c1", "e1")
	time.Sleep(2 * time.Second) // a kill within a fraction of a second would be taken for that of the kernel
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.wait("c1", "")
	if r := l.exitRecord("c1"); r.Cause != "outside" || r.OOMLimit != oom.Own {
		t.Errorf("the record is %+v", r)
	}
	l.mustDelete("c1", "")
}

// A container that comes from a checkpoint is watched as well.
func TestOOMOfARestoredContainer(t *testing.T) {
	needCRIU(t)
	cfg := sh("trap 'exec " + glutton + "' USR1; echo ready; while :; do sleep 0.1; done")
	cfg.MemoryLimit = memoryLimit
	l := newLab(t, labConfig{bundle: cfg})
	io := l.io("c1", client.IOConfig{})
	l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "ready"); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(l.dir, "image")
	l.checkpoint("c1", image, &options.CheckpointOptions{Exit: true})
	l.wait("c1", "")
	l.mustDelete("c1", "")
	_, seen := l.life("c1", 0)
	l.restore("c1", cfg, image, l.io("again", client.IOConfig{}))
	l.kill("c1", "", uint32(syscall.SIGUSR1))
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if r := l.exitRecord("c1"); r.Cause != "oom" || r.OOMLimit != oom.Own {
		t.Errorf("the record is %+v", r)
	}
	l.mustDelete("c1", "")
	life, _ := l.life("c1", seen)
	if err := (oomCase{}).wrong(life, "c1"); err != nil {
		t.Error(err)
	}
}

// oomKills has n processes killed, one in each of the cases after the other. place returns the
// cgroupsPath of the container (its pod alone, if it ends in a slash) and the directory of its pod.
func (l *lab) oomKills(n int, place func(oomCase) (path, dir string)) {
	l.t.Helper()
	seen := l.settled(1) // the bystander's create and start
	began := time.Now()
	before := l.census()
	for i := range n {
		if i == len(oomCases) {
			before = l.census() // each case has been there
		}
		c := oomCases[i%len(oomCases)]
		id := fmt.Sprintf("k%d", i%len(oomCases))
		cfg := client.BundleConfig{Args: c.args, MemoryLimit: c.limit}
		path, dir := place(c)
		cfg.CgroupsPath = strings.Replace(path, "ID", id, 1)
		ids := l.ids
		if l.bundle(id, cfg); i >= len(oomCases) {
			l.ids = ids // it is there twice
		}
		l.oomKill(c, id, dir)
		life, all := l.life(id, seen)
		seen = all
		if err := c.wrong(life, id); err != nil {
			l.t.Errorf("kill %d, %s: %v", i, c.name, err)
		}
		if err := os.RemoveAll(filepath.Join(l.dir, id, "oom")); err != nil {
			l.t.Fatal(err)
		}
		if dir != "" && !strings.HasSuffix(dir, ".slice") {
			removeGroup(l, dir)
		}
	}
	l.t.Logf("%d kills in %v", n, time.Since(began).Round(time.Millisecond))
	l.unchanged(before)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", l.pid()))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.Contains(to, "inotify") {
			l.t.Errorf("the shim has one of the few inotify instances of a node: %s", to)
		}
	}
}

// settled waits until the start of n containers was told, and returns how many events that is.
func (l *lab) settled(n int) int {
	l.t.Helper()
	l.eventually("the starts are told", func() bool {
		return count(l.Events.All(), func(e client.Event) bool { return e.Topic == "/tasks/start" }) == n
	})
	return len(l.Events.All())
}

// life waits for the end of a container whose events come after the first seen ones. It returns them,
// and how many events there are now.
func (l *lab) life(id string, seen int) ([]client.Event, int) {
	l.t.Helper()
	var all []client.Event
	l.eventually("the deletion is told", func() bool {
		all = l.Events.All()
		return count(all[seen:], client.Deletes(id, "")) == 1
	})
	return all[seen:], len(all)
}

// oomKill runs a container, has it lose a process, and checks what its bundle says. dir is its pod's.
func (l *lab) oomKill(c oomCase, id, dir string) {
	l.t.Helper()
	l.run(id, nil)
	if c.exec {
		l.runExec(id, "e1", client.BundleConfig{Args: strings.Fields(glutton)})
		if got := l.wait(id, "e1"); got != 137 {
			l.t.Errorf("%s: the exec ended with %d", c.name, got)
		}
		l.mustDelete(id, "e1")
		l.kill(id, "", 9)
	}
	if got := l.wait(id, ""); got != c.status {
		l.t.Errorf("%s: it ended with %d, want %d", c.name, got, c.status)
	}
	bundle := filepath.Join(l.dir, id)
	if _, err := os.Stat(filepath.Join(bundle, "oom")); err != nil {
		l.t.Errorf("%s: the file by which CRI-O knows: %v", c.name, err)
	}
	record := l.exitRecord(id)
	limit := record.OOMLimit
	if !(c.ours && limit == oom.Own || c.theirs && limit == dir) || record.Cause != c.cause {
		l.t.Errorf("%s: the record says cause %q, limit %q; the pod is %q", c.name, record.Cause, limit, dir)
	}
	l.mustDelete(id, "")
}

// wrong tells what is wrong with the events of one container's life.
func (c oomCase) wrong(life []client.Event, id string) error {
	story, kills, exited := "", 0, false
	for _, e := range life {
		story += strings.TrimPrefix(e.Topic, "/tasks/") + " " + e.Exec() + " "
		if e.Task() != id {
			return fmt.Errorf("an event of %s: %s", e.Task(), story)
		}
		if _, ok := e.Message.(*events.TaskOOM); ok {
			kills++
			if exited {
				return fmt.Errorf("told after the exit: %s", story)
			}
		}
		exited = exited || e.Topic == "/tasks/exit" && e.Exec() == ""
	}
	if kills != 1 || !exited {
		return fmt.Errorf("%d kills told: %s", kills, story)
	}
	return nil
}

// pod makes a control group with a limit and returns the cgroupsPath of a container in it, and its
// directory.
func (l *lab) pod(name string, bytes int64) (path, dir string) {
	l.t.Helper()
	root, file, unified := "/sys/fs/cgroup/memory", "memory.limit_in_bytes", false
	if _, err := os.Stat(root); err != nil {
		root, file, unified = "/sys/fs/cgroup", "memory.max", true
	}
	dir = filepath.Join(root, l.cgroup(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { removeGroup(l, dir) }) // if the test has failed
	values := map[string]string{file: fmt.Sprint(bytes)}
	if unified {
		for parent := root; ; parent = filepath.Join(parent, strings.Split(dir[len(parent)+1:], "/")[0]) {
			writeFile(l, filepath.Join(parent, "cgroup.subtree_control"), "+memory")
			if parent == dir {
				break
			}
		}
		values["memory.swap.max"] = "0"
	}
	for name, value := range values {
		writeFile(l, filepath.Join(dir, name), value)
	}
	return filepath.Join(l.cgroup(name), "ID"), dir
}

func writeFile(l *lab, path, value string) {
	l.t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
}

// removeGroup removes an empty control group, in every hierarchy where the runtime has made it.
func removeGroup(l *lab, dir string) {
	l.t.Helper()
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup(filepath.Base(dir)))
	if err != nil {
		l.t.Error(err)
	}
	for _, group := range append(groups, dir) {
		if err := os.Remove(group); err != nil && !os.IsNotExist(err) {
			l.t.Errorf("remove a pod: %v", err)
		}
	}
}

package direct

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"holdfast/internal/client"
	"holdfast/process"
)

// unitPrefix is the middle part of a cgroupsPath of the systemd driver: slice:prefix:name.
var unitPrefix = fmt.Sprintf("holdfasttest%d", os.Getpid())

// needsSystemd skips a test, before its subtests, without systemd.
func needsSystemd(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("needs systemd as pid 1")
	}
}

// systemdLab is a lab whose containers are in scopes of systemd. It has one for c1 in system.slice.
func systemdLab(t *testing.T, id string, cfg client.BundleConfig) *lab {
	t.Helper()
	needsSystemd(t)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("needs cgroup v2 alone")
	}
	if cfg.CgroupsPath == "" {
		cfg.CgroupsPath = "system.slice:" + unitPrefix + ":" + id
	}
	return newLab(t, labConfig{id: id, bundle: cfg, options: &options.Options{SystemdCgroup: true}})
}

func scope(id string) string { return unitPrefix + "-" + id + ".scope" }

func (l *lab) systemctl(args ...string) string {
	l.t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("systemctl %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// groupOf returns the directory of a process's control group.
func (l *lab) groupOf(pid int) string {
	l.t.Helper()
	_, path, _ := strings.Cut(strings.TrimSpace(l.read(fmt.Sprintf("/proc/%d/cgroup", pid))), "::")
	return filepath.Join("/sys/fs/cgroup", path)
}

// exitRecord is what the bundle says of a container's end.
func (l *lab) exitRecord(id string) (r process.ExitRecord) {
	l.t.Helper()
	if err := json.Unmarshal([]byte(l.read(filepath.Join(l.dir, id, process.ExitFile))), &r); err != nil {
		l.t.Fatal(err)
	}
	return r
}

// noOOM checks that nothing was told of an OOM, in a life that has ended.
func (l *lab) noOOM(id string) {
	l.t.Helper()
	l.event(client.Deletes(id, ""))
	if n := count(l.Events.All(), func(e client.Event) bool { return e.Topic == "/tasks/oom" }); n != 0 {
		l.t.Errorf("%d OOM kills told, and there was none", n)
	}
	if _, err := os.Stat(filepath.Join(l.dir, id, "oom")); err == nil {
		l.t.Error("a file oom, and there was no OOM kill")
	}
}

// The driver's path is slice:prefix:name; a slice's name tells the slices that it is in.
func TestSystemdPaths(t *testing.T) {
	needsSystemd(t)
	top, burst := unitPrefix+".slice", unitPrefix+"-burst.slice"
	pod := unitPrefix + "-burst-pod1.slice"
	for parent, slice := range map[string]string{
		"system.slice": "system.slice",
		"":             "system.slice",
		pod:            filepath.Join(top, burst, pod),
	} {
		t.Run("in "+parent, func(t *testing.T) {
			cfg := sleeper()
			cfg.CgroupsPath, cfg.MemoryLimit = parent+":"+unitPrefix+":c1", 64<<20
			l := systemdLab(t, "c1", cfg)
			pid := l.run("c1", nil)
			group := l.groupOf(pid)
			if want := filepath.Join("/sys/fs/cgroup", slice, scope("c1")); group != want {
				t.Errorf("it is in %s, want %s", group, want)
			}
			l.runExec("c1", "e1", sleeper())
			if got := len(l.pids("c1")); got != 2 {
				t.Errorf("%d processes", got)
			}
			if _, limit := l.memory("c1"); limit != 64<<20 {
				t.Errorf("the limit is %d", limit)
			}
			l.pause("c1")
			if _, err := l.Resume(within(t), &task.ResumeRequest{ID: "c1"}); err != nil {
				t.Error(err)
			}
			l.finish("c1")
			l.eventually("the group has gone", func() bool {
				_, err := os.Stat(group)
				return os.IsNotExist(err)
			})
			if parent == pod {
				l.systemctl("stop", top)
			}
			l.noOOM("c1")
		})
	}
}

// The scope goes with its last process, and with it the counter of OOM kills.
func TestEveryOOMKillInAScopeIsToldOnce(t *testing.T) {
	l := systemdLab(t, "bystander", bystander())
	pod := unitPrefix + "pod.slice"
	l.systemctl("set-property", "--runtime", pod, fmt.Sprint("MemoryMax=", memoryLimit), "MemorySwapMax=0")
	l.systemctl("start", pod)
	t.Cleanup(func() {
		l.systemctl("stop", pod)
		l.systemctl("revert", pod)
	})
	l.run("bystander", nil)
	l.oomKills(amount(t, oomsVariable, 25), func(c oomCase) (string, string) {
		if c.pod == 0 {
			return "system.slice:" + unitPrefix + ":ID", ""
		}
		return pod + ":" + unitPrefix + ":ID", filepath.Join("/sys/fs/cgroup", pod)
	})
	l.finish("bystander")
}

// An operator stops or kills the scope, and nobody tells the shim.
func TestScopeIsEndedBehindOurBack(t *testing.T) {
	needsSystemd(t)
	for name, c := range map[string]struct {
		command []string
		status  int
		cause   string
	}{
		"stopped": {[]string{"stop"}, 5, ""},
		"killed":  {[]string{"kill", "-s", "KILL"}, 137, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			l := systemdLab(t, "c1", sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
			io := l.io("c1", client.IOConfig{})
			l.run("c1", io)
			if err := io.Out.WaitFor(within(t), "ready"); err != nil {
				t.Fatal(err)
			}
			l.runExec("c1", "e1", sleeper())
			l.systemctl(append(c.command, scope("c1"))...)
			if got := l.wait("c1", ""); got != c.status {
				t.Errorf("exit status %d, want %d", got, c.status)
			}
			if got := l.wait("c1", "e1"); got != 143 && got != 137 {
				t.Errorf("the exec ended with %d", got)
			}
			if got := l.status("c1", ""); got != tasktypes.Status_STOPPED {
				t.Errorf("it is %s", got)
			}
			if r := l.exitRecord("c1"); r.Cause != c.cause || r.OOMLimit != "" {
				t.Errorf("the record is %+v", r)
			}
			l.mustDelete("c1", "e1")
			l.mustDelete("c1", "")
			l.noOOM("c1")
			// The name is free again.
			l.ids = nil
			l.bundle("c1", client.BundleConfig{Args: []string{"/bin/true"}, CgroupsPath: "system.slice:" + unitPrefix + ":c1"})
			l.run("c1", nil)
			if got := l.wait("c1", ""); got != 0 {
				t.Errorf("the next container ended with %d", got)
			}
			l.mustDelete("c1", "")
		})
	}
}

// systemd reads its units again, or starts itself again, while a container runs.
func TestSystemdIsReloaded(t *testing.T) {
	l := systemdLab(t, "c1", client.BundleConfig{
		Args: sh("while ! [ -e /tmp/go ]; do sleep 0.1; done; exec " + glutton).Args, MemoryLimit: memoryLimit,
	})
	pid := l.run("c1", nil)
	group := l.groupOf(pid)
	for _, command := range []string{"daemon-reload", "daemon-reexec"} {
		l.systemctl(command)
		if got := l.groupOf(pid); got != group {
			t.Errorf("after %s it is in %s", command, got)
		}
		if _, limit := l.memory("c1"); limit != memoryLimit {
			t.Errorf("after %s the limit is %d", command, limit)
		}
		if got := l.systemctl("is-active", scope("c1")); got != "active" {
			t.Errorf("after %s the scope is %s", command, got)
		}
		l.runExec("c1", command, sh("exit 6"))
		if got := l.wait("c1", command); got != 6 {
			t.Errorf("after %s an exec ended with %d", command, got)
		}
		l.mustDelete("c1", command)
	}
	l.runExec("c1", "go", client.BundleConfig{Args: []string{"/usr/bin/touch", "/tmp/go"}})
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if r := l.exitRecord("c1"); r.Cause != "oom" || r.OOMLimit != "container" {
		t.Errorf("the record is %+v", r)
	}
	l.wait("c1", "go")
	l.mustDelete("c1", "go")
	l.mustDelete("c1", "")
	l.event(client.Deletes("c1", ""))
	if n := count(l.Events.All(), func(e client.Event) bool { return e.Topic == "/tasks/oom" }); n != 1 {
		t.Errorf("%d OOM kills told", n)
	}
}

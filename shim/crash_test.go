package shim

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// realPod is a pod of real containers, run by the real runtime: the sandbox p, a, which has exited
// with 42, and b, which ignores what can be ignored.
type realPod struct {
	*client.Session
	m    *manager
	pids map[string]int
}

func startPod(t *testing.T, ctx context.Context) *realPod {
	t.Helper()
	m := newManager(t, "2.4")
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc: ", err)
	}
	programs := map[string]string{"p": "sleep 1000", "a": "exit 42", "b": "trap '' TERM; sleep 1000 & wait; sleep 1000"}
	pod := &realPod{m: m, pids: map[string]int{}}
	group := fmt.Sprintf("/holdfast-pod-%d", unix.Getpid())
	makeCgroups(t, group) // the parent of all, which the runtime would leave behind
	for _, id := range []string{"p", "a", "b"} {
		kind := "container"
		if id == "p" {
			kind = "sandbox"
		}
		bundle := filepath.Join(m.state, id)
		err := client.NewBundle(bundle, client.BundleConfig{
			Args: []string{"sh", "-c", programs[id]}, CgroupsPath: group + "/" + id,
			Annotations: map[string]string{sandboxAnnotation: "p", containerAnnotation: kind},
		})
		if err != nil {
			t.Fatal(err)
		}
		cfg := client.StartConfig{
			Binary: m.binary, ID: id, Namespace: "ns", Bundle: bundle, Address: m.address, SocketDir: m.sockets, Env: m.env,
		}
		if id == "p" {
			if pod.Session, err = client.Launch(ctx, filepath.Dir(m.sockets), cfg, nil); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pod.Session.Close)
		} else if _, err := client.Start(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		pod.run(t, ctx, id, bundle)
	}
	if exit, err := pod.Wait(ctx, &task.WaitRequest{ID: "a"}); err != nil || exit.GetExitStatus() != 42 {
		t.Fatalf("a ended with %v, %v", exit, err)
	}
	return pod
}

func (p *realPod) run(t *testing.T, ctx context.Context, id, bundle string) {
	t.Helper()
	created, err := p.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: bundle})
	if err != nil {
		t.Fatalf("create %s: %v; log: %s", id, err, p.Log)
	}
	p.pids[id] = int(created.GetPid())
	if _, err := p.Start(ctx, &task.StartRequest{ID: id}); err != nil {
		t.Fatalf("start %s: %v; log: %s", id, err, p.Log)
	}
}

// kill kills the daemon and returns once it is gone.
func (p *realPod) kill(t *testing.T) {
	t.Helper()
	if err := unix.Kill(p.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
}

// TestCrashOfARealPod kills the daemon of a pod and deletes the sandbox alone, as managers up to 2.3
// do: nothing may be left alive. What the others have recorded is reported when they are deleted.
func TestCrashOfARealPod(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	p := startPod(t, ctx)
	p.kill(t)
	since := time.Now()
	answer, complaint := p.m.mustDelete("p")
	checkKilled(t, answer, uint32(p.pids["p"]), since)
	if complaint != "" {
		t.Errorf("complained %q", complaint)
	}
	for id, pid := range p.pids {
		eventually(t, id+" is dead", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
	}
	if names := fileNames(t, p.m.sockets); len(names) > 0 {
		t.Errorf("sockets left: %v", names)
	}
	if left := fileNames(t, "/run/containerd/runc/ns"); len(left) > 0 {
		t.Errorf("the runtime still knows %v", left)
	}
	if answer, complaint := p.m.mustDelete("a"); answer.GetExitStatus() != 42 || int(answer.GetPid()) != p.pids["a"] || complaint != "" {
		t.Errorf("a ended with %v, complained %q", answer, complaint)
	}
	answer, _ = p.m.mustDelete("b")
	checkKilled(t, answer, uint32(p.pids["b"]), since)
	if mounts := readText(t, "/proc/self/mountinfo"); strings.Contains(mounts, p.m.state) {
		t.Errorf("mounts left: %s", mounts)
	}
}

package direct

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// A manager that was killed, or has forgotten to ask the shim to end, does not leave it behind; but
// as long as the bundle is there it may come back.
func TestShimThatIsForgottenEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	l := newLab(t, labConfig{bundle: sh("exit 0")})
	l.run("c1", nil)
	l.wait("c1", "")
	l.mustDelete("c1", "")
	pid := l.Pid()
	l.Shim.Close()
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if !isShim(pid) {
			t.Fatal("it ended while the bundle was there")
		}
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "c1")); err != nil {
		t.Fatal(err)
	}
	l.dead(pid)
	l.killed = true
	order.Verify(t, l.Events.All())
	l.Close()
}

// A start has been told where the shim is; then the pod's last container goes, and the manager asks
// the shim to end, before the new one is created (contract T58).
func TestStartIsNotSentToAShimThatEnds(t *testing.T) {
	l := newLab(t, labConfig{bundle: grouped(sh("exit 0"), "g")})
	l.run("c1", nil)
	l.wait("c1", "")
	address := l.join("c2", grouped(sh("exit 7"), "g"))
	l.mustDelete("c1", "")
	l.shutDown("c1")
	if address != l.Result.Address {
		t.Fatalf("start answers %s, not %s", address, l.Result.Address)
	}
	l.run("c2", nil)
	if got := l.wait("c2", ""); got != 7 {
		t.Errorf("exit status %d", got)
	}
	l.mustDelete("c2", "")
}

// podsVariable says how many pods TestChurnedPodsLeaveNothing has, if not 100.
const podsVariable = "HOLDFAST_PODS"

// Managers that forget everything: each pod's shim is told nothing after the deletion of its container,
// or not even that. The delete action and the removal of the bundle are all that comes.
func TestChurnedPodsLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	l := newLab(t, labConfig{bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
	l.run("c1", nil)
	pids := make([]int, amount(t, podsVariable, 100))
	spread(t, len(pids), func(i int) (err error) {
		pids[i], err = l.forgottenPod(fmt.Sprint("p", i), i%2 == 0)
		return err
	})
	for _, pid := range pids {
		l.dead(pid)
	}
	sockets, err := os.ReadDir(filepath.Join(l.dir, "s"))
	if err != nil || len(sockets) != 1 {
		t.Errorf("sockets: %v, %v; want that of the shim that lives", sockets, err)
	}
	l.finish("c1")
}

// forgottenPod runs a pod and forgets it: with its container deleted, or running.
func (l *lab) forgottenPod(id string, deleted bool) (pid int, err error) {
	bundle := filepath.Join(l.dir, id)
	if err := client.NewBundle(bundle, client.BundleConfig{Args: []string{"/bin/sleep", "1000"}, CgroupsPath: l.cgroup(id)}); err != nil {
		return 0, err
	}
	cfg := l.startConfig(id)
	cfg.Address, cfg.TTRPCAddress = l.Config.Address, l.Config.TTRPCAddress
	pod, err := client.Launch(within(l.t), l.dir, cfg, nil)
	if err != nil {
		return 0, err
	}
	defer pod.Close()
	if _, err := pod.Create(within(l.t), l.createRequest(id, nil)); err != nil {
		return 0, err
	}
	if _, err := pod.Start(within(l.t), &task.StartRequest{ID: id}); err != nil {
		return 0, err
	}
	if _, err := pod.Kill(within(l.t), &task.KillRequest{ID: id, Signal: 9}); err != nil {
		return 0, err
	}
	if _, err := pod.Wait(within(l.t), &task.WaitRequest{ID: id}); err != nil {
		return 0, err
	}
	if deleted {
		if _, err := pod.Delete(within(l.t), &task.DeleteRequest{ID: id}); err != nil {
			return 0, err
		}
	} else if err := syscall.Kill(pod.Pid(), syscall.SIGKILL); err != nil {
		return 0, err
	}
	pod.Shim.Close()
	if _, warnings, err := client.Delete(context.Background(), cfg); err != nil || warnings != "" {
		return 0, fmt.Errorf("the delete action: %w; it says %q", err, warnings)
	}
	return pod.Pid(), os.RemoveAll(bundle)
}

package direct

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"

	"holdfast/internal/client"
	"holdfast/process"
	"holdfast/test/order"
)

// upstream returns containerd's own shim, in the version that the end-to-end tests use.
func upstream(t *testing.T) string {
	t.Helper()
	binary, err := upstreamBuild()
	if err != nil {
		t.Skipf("containerd's own shim cannot be built: %v", err)
	}
	return binary
}

var upstreamBuild = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../build-containerd").Output()
	if err != nil {
		return "", err
	}
	return filepath.Join(strings.TrimSpace(string(out)), "containerd-shim-runc-v2"), nil
})

// joinWith runs the start action of another binary for a further container, which edit may ask in
// another way, and returns what it answers.
func (l *lab) joinWith(binary, id string, cfg client.BundleConfig, edit func(*client.StartConfig)) *bootstrap.BootstrapResult {
	l.t.Helper()
	start := l.Config
	start.Binary, start.ID, start.Bundle = binary, id, l.bundle(id, cfg)
	if edit != nil {
		edit(&start)
	}
	log, err := client.OpenLog(start.Bundle, &tail{t: l.t})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(log.Close)
	answer, err := client.Start(within(l.t), start)
	if err != nil {
		l.t.Fatalf("start for %s by %s: %v", id, binary, err)
	}
	return answer
}

// live2 leads a container of the daemon through its life by a connection of its own, in the
// version that start has answered.
func (l *lab) live2(id string, answer *bootstrap.BootstrapResult) {
	l.t.Helper()
	own, err := client.Dial(within(l.t), answer.Address)
	if err != nil {
		l.t.Fatal(err)
	}
	defer own.Close()
	own.Namespace, own.Version = l.name, int(answer.Version)
	streams := l.io(id, client.IOConfig{})
	if _, err := own.Create(within(l.t), l.createRequest(id, streams)); err != nil {
		l.t.Fatalf("create %s: %v", id, err)
	}
	if _, err := own.Start(within(l.t), &task.StartRequest{ID: id}); err != nil {
		l.t.Fatalf("start %s: %v", id, err)
	}
	if got := l.output(streams.Out); got != "hello\n" {
		l.t.Errorf("%s says %q", id, got)
	}
	exit, err := own.Wait(within(l.t), &task.WaitRequest{ID: id})
	if err != nil || exit.GetExitStatus() != 7 {
		l.t.Errorf("%s ends with %v, %v", id, exit, err)
	}
	if a, err := own.Delete(within(l.t), &task.DeleteRequest{ID: id}); err != nil || a.GetExitStatus() != 7 {
		l.t.Errorf("delete of %s: %v, %v", id, a, err)
	}
}

// mixed is which binary has started the daemon of a pod, and which starts the next container.
type mixed struct {
	name           string
	daemon, second func(t *testing.T) string
	edit           func(*client.StartConfig) // of the second start
	version        int32                     // that it answers
}

func ours(*testing.T) string { return shimBinary }

// legacy makes a start what an older manager, and so one of an older shim, asks for.
func legacy(cfg *client.StartConfig) { cfg.Legacy = true }

// A pod outlives the upgrade of the shim, and a downgrade: its next container is started by the
// other binary, joins the daemon that is there, and works through it. What differs between builds
// of ours is the protocol of start, so an older one is played by ours under the older protocol.
func TestNextContainerComesFromAnotherBuild(t *testing.T) {
	for _, c := range []mixed{
		{name: "ours joins upstream's", daemon: upstream, second: ours, version: 3},
		{name: "upstream's joins ours", daemon: ours, second: upstream, version: 3},
		{name: "older upstream's joins ours", daemon: ours, second: upstream, edit: legacy, version: 2},
		{name: "older ours joins ours", daemon: ours, second: ours, edit: legacy, version: 2},
		{name: "older ours joins upstream's", daemon: upstream, second: ours, edit: legacy, version: 2},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t) })
	}
}

func (c mixed) run(t *testing.T) {
	second := c.second(t)
	l := newLab(t, labConfig{binary: c.daemon(t), bundle: grouped(sleeper(), "g")})
	pid := l.pid()
	l.run("c1", nil)
	edit := func(cfg *client.StartConfig) {
		if c.edit != nil {
			c.edit(cfg)
		}
		// Managers up to 2.2 know of no directory for sockets; it is the default one's business
		// which daemon such a start finds, so it has to be told in the way of a newer one.
	}
	answer := c.join(l, second, edit)
	if answer.Address != l.Result.Address || answer.Version != c.version {
		t.Fatalf("start answers %v, want version %d of %s", answer, c.version, l.Result.Address)
	}
	l.live2("c2", answer)
	if got := l.pid(); got != pid {
		t.Errorf("the daemon is %d now, was %d", got, pid)
	}
	if got := l.runExec("c1", "e1", sh("exit 6")); got <= 0 || l.wait("c1", "e1") != 6 {
		t.Error("c1 suffers")
	}
	l.mustDelete("c1", "e1")
	l.finish("c1")
}

func (c mixed) join(l *lab, binary string, edit func(*client.StartConfig)) *bootstrap.BootstrapResult {
	return l.joinWith(binary, "c2", grouped(sh("echo hello; exit 7"), "g"), edit)
}

// crashed is a lab whose daemon, started by binary, was killed with one container at each point of
// its life: c1 runs, c2 has exited with 42.
func crashed(t *testing.T, binary string) (l *lab, pids map[string]int) {
	t.Helper()
	l = newLab(t, labConfig{binary: binary, bundle: sh("sleep 1000 & exec sleep 1000"), relax: []order.Option{order.EndsInMiddle}})
	pids = map[string]int{"c1": l.run("c1", nil), "c2": l.more("c2", sh("exit 42"))}
	if got := l.wait("c2", ""); got != 42 {
		t.Errorf("exit status %d", got)
	}
	if err := syscall.Kill(l.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-l.Done()
	l.killed = true
	return l, pids
}

// The manager runs the delete action of the binary that is installed now, on the bundle of a shim
// that has crashed: the status is the true one, and nothing stays.
func TestDeleteActionOfAnotherBuild(t *testing.T) {
	for _, c := range []struct {
		name           string
		daemon, action func(*testing.T) string
	}{
		{"ours after upstream's", upstream, ours},
		{"upstream's after ours", ours, upstream},
	} {
		t.Run(c.name, func(t *testing.T) {
			action := c.action(t)
			l, pids := crashed(t, c.daemon(t))
			var record process.ExitRecord
			if err := json.Unmarshal([]byte(l.read(filepath.Join(l.dir, "c2", process.ExitFile))), &record); err != nil {
				t.Fatal(err)
			}
			l.Config.Binary = action
			for id, want := range map[string]uint32{"c1": 137, "c2": 42} {
				a := l.cleanUp(id)
				if a.GetExitStatus() != want || int(a.GetPid()) != pids[id] {
					t.Errorf("delete action for %s answers %v, want status %d of %d", id, a, want, pids[id])
				}
				if id == "c2" && !a.GetExitedAt().AsTime().Equal(record.Timestamp) {
					t.Errorf("it says %v, the record %v", a.GetExitedAt().AsTime(), record.Timestamp)
				}
				if _, err := os.Lstat(filepath.Join("/run/containerd/runc", l.name, id)); !os.IsNotExist(err) {
					t.Errorf("the runtime's state of %s is left: %v", id, err)
				}
			}
			l.dead(pids["c1"])
			l.noStrays()
			// Upstream's leaves the socket to the next start.
			if err := os.Remove(strings.TrimPrefix(l.Result.Address, "unix://")); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
			order.Verify(t, l.Events.All(), l.relax...)
			l.Close()
		})
	}
}

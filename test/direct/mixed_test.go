package direct

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

// variant is a binary of a shim, and the manager that starts it.
type variant struct {
	path string
	edit func(*client.StartConfig)
	// loose is a daemon whose events are not in the order that ours keep (see TestManyCycles).
	loose bool
}

// ours is the shim under test. What differs between builds of ours is the protocol of start, so an
// older one is played by ours under the older protocol.
func ours() variant      { return variant{path: shimBinary, edit: quiet} }
func olderOurs() variant { return variant{path: shimBinary, edit: legacy} }

// quiet has nothing logged: on its standard error, at level debug, upstream's delete action talks.
func quiet(cfg *client.StartConfig) { cfg.Debug = false }

// legacy starts as containerd 1.6 does, which knows of one directory for sockets only.
func legacy(cfg *client.StartConfig) {
	quiet(cfg)
	cfg.Legacy, cfg.Containerd, cfg.SocketDir = true, "1.6.20", ""
}

// upstream returns containerd's own shim, in the version that the end-to-end tests use.
func upstream(t *testing.T) variant {
	t.Helper()
	path, err := upstreamBuild()
	if err != nil {
		t.Skipf("containerd's own shim cannot be built: %v", err)
	}
	return variant{path: path, edit: quiet, loose: true}
}

var upstreamBuild = sync.OnceValues(func() (string, error) {
	var words strings.Builder
	cmd := exec.Command("../build-containerd")
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, words.String())
	}
	return filepath.Join(strings.TrimSpace(string(out)), "containerd-shim-runc-v2"), nil
})

// upstream1 returns the shim of containerd 1.x that the machine has.
func upstream1(t *testing.T) variant {
	t.Helper()
	path, err := exec.LookPath("containerd-shim-runc-v2")
	if err != nil {
		t.Skip("containerd's own shim is not installed")
	}
	version, err := exec.Command(path, "-v").Output()
	if err != nil || !strings.Contains(string(version), " 1.") {
		t.Skipf("the shim that is installed is not of containerd 1.x: %s %v", version, err)
	}
	return variant{path: path, edit: legacy, loose: true}
}

// joinWith runs the start action of another build for a further container of a group, and returns
// what it answers.
func (l *lab) joinWith(b variant, id string, cfg client.BundleConfig) *bootstrap.BootstrapResult {
	l.t.Helper()
	start := l.Config
	start.Binary, start.ID, start.Bundle, start.Legacy, start.Containerd = b.path, id, l.bundle(id, cfg), false, ""
	b.edit(&start)
	log, err := client.OpenLog(start.Bundle, &tail{t: l.t})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(log.Close)
	answer, err := client.Start(within(l.t), start)
	if err != nil {
		l.t.Fatalf("start for %s by %s: %v", id, b.path, err)
	}
	return answer
}

// lifeThrough leads a container of the daemon through its life by a connection of its own, in the
// version that start has answered.
func (l *lab) lifeThrough(id string, answer *bootstrap.BootstrapResult) {
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

// A pod outlives the upgrade of the shim, and a downgrade: its next container is started by the
// other build, joins the daemon that is there, and works through it.
func TestNextContainerComesFromAnotherBuild(t *testing.T) {
	theirs := upstream(t)
	t.Run("ours joins upstream's", func(t *testing.T) { mix(t, theirs, ours(), 3) })
	t.Run("upstream's joins ours", func(t *testing.T) { mix(t, ours(), theirs, 3) })
	t.Run("ours joins older ours", func(t *testing.T) { mix(t, olderOurs(), inSharedDir(ours()), 3) })
	t.Run("older ours joins ours", func(t *testing.T) { mix(t, inSharedDir(ours()), olderOurs(), 2) })
}

// The same with a shim that speaks version 2 of the task API only.
func TestNextContainerComesFromContainerd1(t *testing.T) {
	theirs := upstream1(t)
	t.Run("ours joins theirs", func(t *testing.T) { mix(t, theirs, inSharedDir(ours()), 2) })
	t.Run("theirs joins ours", func(t *testing.T) { mix(t, inSharedDir(ours()), theirs, 2) })
	t.Run("older ours joins theirs", func(t *testing.T) { mix(t, theirs, olderOurs(), 2) })
	t.Run("theirs joins older ours", func(t *testing.T) { mix(t, olderOurs(), theirs, 2) })
}

// inSharedDir has b use the directory for sockets that the older protocol is bound to.
func inSharedDir(b variant) variant {
	b.edit = func(cfg *client.StartConfig) { quiet(cfg); cfg.SocketDir = "" }
	return b
}

// mix runs a pod whose daemon is of one build, and whose second container is started by another,
// which has to answer that version.
func mix(t *testing.T, daemon, second variant, version int32) {
	l := newLab(t, labConfig{binary: daemon.path, bundle: grouped(sleeper(), "g"), edit: daemon.edit})
	pid := l.pid()
	l.run("c1", nil)
	answer := l.joinWith(second, "c2", grouped(sh("echo hello; exit 7"), "g"))
	if answer.Address != l.Result.Address || answer.Version != version {
		t.Errorf("start answers %v, want version %d of %s", answer, version, l.Result.Address)
	}
	l.lifeThrough("c2", answer)
	if got := l.pid(); got != pid {
		t.Errorf("the daemon is %d now, was %d", got, pid)
	}
	if got := l.runExec("c1", "e1", sh("exit 6")); got <= 0 || l.wait("c1", "e1") != 6 {
		t.Error("an exec in c1 does not run")
	}
	l.mustDelete("c1", "e1")
	l.finish("c1")
	if daemon.loose {
		l.endLoose()
	}
}

// endLoose is end for a daemon of upstream's: it says more than ours on standard error, it leaves
// the socket of a group to the next start, and its events come in another order.
func (l *lab) endLoose() {
	l.t.Helper()
	l.killed = true
	if _, err := l.End(within(l.t)); err != nil && !errors.Is(err, client.ErrWarning) {
		l.t.Errorf("end of the shim: %v", err)
	}
	cfg := l.Config
	cfg.ID, cfg.Bundle = "c2", filepath.Join(l.dir, "c2")
	if _, _, err := client.Delete(within(l.t), cfg); err != nil {
		l.t.Error(err)
	}
	l.removeSocket()
}

// removeSocket removes the socket of the daemon, if it is there.
func (l *lab) removeSocket() {
	l.t.Helper()
	path := strings.TrimPrefix(l.Result.Address, "unix://")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Error(err)
	}
}

// crashed is a lab whose daemon, of that build, was killed with one container at each point of
// its life: c1 runs, c2 has exited with 42.
func crashed(t *testing.T, b variant) (l *lab, pids map[string]int) {
	t.Helper()
	l = newLab(t, labConfig{
		binary: b.path, edit: b.edit, bundle: sh("sleep 1000 & exec sleep 1000"),
		relax: []order.Option{order.EndsInMiddle},
	})
	pids = map[string]int{"c1": l.run("c1", nil), "c2": l.more("c2", sh("exit 42"))}
	if got := l.wait("c2", ""); got != 42 {
		t.Errorf("exit status %d", got)
	}
	l.eventually("the exit of c2 is recorded", func() bool { // upstream's does so after it is told
		_, err := os.Stat(filepath.Join(l.dir, "c2", process.ExitFile))
		return err == nil
	})
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
	theirs := upstream(t)
	for _, c := range []struct {
		name           string
		daemon, action variant
	}{
		{"ours after upstream's", theirs, ours()},
		{"upstream's after ours", ours(), theirs},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, pids := crashed(t, c.daemon)
			var record process.ExitRecord
			if err := json.Unmarshal([]byte(l.read(filepath.Join(l.dir, "c2", process.ExitFile))), &record); err != nil {
				t.Fatal(err)
			}
			l.Config.Binary = c.action.path
			for id, want := range map[string]uint32{"c1": 137, "c2": 42} {
				a := l.cleanUp(id)
				if a.GetExitStatus() != want || int(a.GetPid()) != pids[id] {
					t.Errorf("delete action for %s answers %v, want status %d of %d", id, a, want, pids[id])
				}
				if id == "c2" && !a.GetExitedAt().AsTime().Equal(record.Timestamp) {
					t.Errorf("it says %v, the record %v", a.GetExitedAt().AsTime(), record.Timestamp)
				}
				if _, err := os.Lstat(filepath.Join("/run/containerd/runc", l.name, id)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the runtime's state of %s is left: %v", id, err)
				}
			}
			l.dead(pids["c1"])
			l.noStrays()
			l.removeSocket()
			if !c.daemon.loose {
				order.Verify(t, l.Events.All(), l.relax...)
			}
			l.Close()
		})
	}
}

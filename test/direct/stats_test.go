package direct

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
)

// groups returns the directories of a container's cgroup in all hierarchies.
func (l *lab) groups(id string) []string {
	l.t.Helper()
	dirs, err := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup(id))
	if err != nil {
		l.t.Fatal(err)
	}
	if unified := "/sys/fs/cgroup" + l.cgroup(id); len(dirs) == 0 {
		dirs = append(dirs, unified)
	}
	return dirs
}

// vanish removes the cgroup of a stopped container, as systemd does at once.
func (l *lab) vanish(id string) {
	l.t.Helper()
	for _, dir := range l.groups(id) {
		l.eventually("remove "+dir, func() bool {
			err := os.Remove(dir)
			return err == nil || errors.Is(err, fs.ErrNotExist)
		})
	}
}

// Managers ask for the OOM kills after an exit with 137; the cgroup may have gone by then.
func TestStatsOfAStoppedContainerWithoutCgroup(t *testing.T) {
	for _, row := range []struct {
		name   string
		bundle client.BundleConfig
		oom    bool
	}{
		{"killed for want of memory", client.BundleConfig{Args: []string{"/usr/bin/tail", "/dev/zero"}, MemoryLimit: 48 << 20}, true},
		{"exited by itself", sh("exit 137"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: row.bundle})
			l.run("c1", nil)
			if got := l.wait("c1", ""); got != 137 {
				t.Errorf("exit status %d, want 137", got)
			}
			if kills, _ := l.memory("c1"); kills > 0 != row.oom {
				t.Errorf("%d OOM kills while the cgroup is there", kills)
			}
			l.vanish("c1")
			if row.oom {
				if kills, _ := l.memory("c1"); kills == 0 {
					t.Error("no OOM kills any more")
				}
			} else if _, err := l.Stats(within(t), &task.StatsRequest{ID: "c1"}); !errdefs.IsNotFound(err) {
				t.Errorf("stats without a cgroup: %v", err)
			}
			l.mustDelete("c1", "")
			if _, err := l.Stats(within(t), &task.StatsRequest{ID: "c1"}); !errdefs.IsNotFound(err) {
				t.Errorf("stats of a deleted container: %v", err)
			}
		})
	}
}

// Whoever watches has files open in the shim, and no longer than he watches.
func TestStatsLeaveNothingOpen(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", nil)
	before := l.census().Descriptors()
	best := time.Hour
	for range 200 {
		began := time.Now()
		l.memory("c1")
		best = min(best, time.Since(began))
	}
	t.Logf("the quickest request took %v, with %d descriptors, %d before", best, l.census().Descriptors(), before)
	l.eventually("the files are closed", func() bool { return l.census().Descriptors() <= before })
	l.finish("c1")
}

package soak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

const (
	pods    = 3 // shims
	slots   = 3 // containers that a shim may have at a time, beside its first
	clients = 6
	limit   = 30 * time.Second // for each answer, and for each thing that has to happen in the end
)

// A world is everything of one run.
type world struct {
	t    *testing.T
	dir  string
	name string // unique on this machine: the namespace, and the parent of the cgroups
	pods []*pod
	tally
}

// A pod is a shim. Its first container runs all the time, so that the shim does.
type pod struct {
	*client.Session
	world   *world
	id      string // of the first container
	dir     string
	before  leak.Census // what the shim held when it had one container
	patient *line       // for waits that take as long as they take
	waiters sync.WaitGroup

	mu    sync.Mutex
	slots [slots]*life
	lives []*life // every one that there has been
}

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

// newWorld starts the shims. At the end of the test nothing may be left of it.
func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "hs")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, name: filepath.Base(dir), tally: newTally()}
	t.Cleanup(w.clear)
	t.Cleanup(func() { noRaces(t) })
	watch := leak.Check(t, leak.Mounts(dir), leak.Sockets(filepath.Join(dir, "s")), leak.Cgroups(w.cgroup("")))
	if err := w.makeLogger(); err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		p := w.newPod(fmt.Sprintf("p%d", i))
		watch.Also(leak.Pid(p.Pid()))
	}
	return w
}

func (w *world) newPod(id string) *pod {
	w.t.Helper()
	ctx, cancel := within()
	defer cancel()
	p := &pod{world: w, id: id, dir: filepath.Join(w.dir, id)}
	for _, dir := range []string{p.dir, filepath.Join(p.dir, "io")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := client.NewBundle(filepath.Join(p.dir, id), p.config([]string{"/bin/sleep", "100000"}, false)); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if p.Session, err = client.Launch(ctx, p.dir, p.startConfig(id), nil); err != nil {
		w.t.Fatal(err)
	}
	if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid())); !strings.Contains(string(env), raceReports) {
		w.t.Errorf("the shim does not know where to report data races: %v", err)
	}
	p.patient = &line{pod: p}
	w.pods = append(w.pods, p)
	w.t.Cleanup(p.end)
	if _, err := p.Create(ctx, &task.CreateTaskRequest{ID: id, Bundle: filepath.Join(p.dir, id)}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := p.Start(ctx, &task.StartRequest{ID: id}); err != nil {
		w.t.Fatal(err)
	}
	if p.before, err = leak.Process(p.Pid()); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (p *pod) startConfig(id string) client.StartConfig {
	return client.StartConfig{
		Binary: shimBinary, ID: id, Namespace: p.world.name, Bundle: filepath.Join(p.dir, id),
		SocketDir: filepath.Join(p.world.dir, "s"),
	}
}

// config is the bundle of a container of the pod; its cgroup is set by the caller.
func (p *pod) config(args []string, terminal bool) client.BundleConfig {
	return client.BundleConfig{
		Args: args, Terminal: terminal, CgroupsPath: p.world.cgroup(p.id),
		Annotations: map[string]string{"io.containerd.runc.v2.group": p.id},
	}
}

// cgroup is the path of a container's cgroup in each hierarchy.
func (w *world) cgroup(id string) string { return filepath.Join("/holdfast-test", w.name, id) }

// logger is the program that containers may have their output passed to, and reader what it
// becomes. Both have the directory of the world in their command lines.
func (w *world) logger() string { return filepath.Join(w.dir, "logger") }
func (w *world) reader() string { return filepath.Join(w.dir, "logcat") }

func (w *world) makeLogger() error {
	if err := os.Symlink("/bin/cat", w.reader()); err != nil {
		return err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec 5>&-\nexec %s /dev/fd/3 /dev/fd/4 >/dev/null\n", w.reader())
	return os.WriteFile(w.logger(), []byte(script), 0o700)
}

// cleanUp runs the delete action for a container, as containerd does for each. It is repeated if a
// runtime that it needed was killed.
func (p *pod) cleanUp(id string) {
	cfg := p.Config
	cfg.ID, cfg.Bundle = id, filepath.Join(p.dir, id)
	for {
		struck := p.world.struck(id)
		ctx, cancel := within()
		_, warnings, err := client.Delete(ctx, cfg)
		cancel()
		if err == nil && warnings == "" {
			return
		}
		if p.world.struck(id) == struck {
			p.world.t.Errorf("delete action for %s: %v; it says %q", id, err, warnings)
			return
		}
	}
}

// leave does what a manager does after the deletion of a task, once: ask the shim to shut down, which
// has other containers, run the delete action, remove the bundle.
func (p *pod) leave(l *life, c *line) { l.left.Do(func() { p.afterDeletion(l, c) }) }

func (p *pod) afterDeletion(l *life, c *line) {
	for _, s := range l.readers() {
		s.end()
	}
	err := c.call(shutdown, l.id, func(ctx context.Context, s *client.Shim) error {
		_, err := s.Shutdown(ctx, &task.ShutdownRequest{ID: l.id})
		return err
	})
	if err != nil && !lost(err) {
		p.world.t.Errorf("shutdown after %s: %v", l.id, err)
	}
	p.cleanUp(l.id)
	p.removeBundle(l)
}

// removeBundle removes the bundle of a container that was deleted, and checks that its cgroups are
// gone.
func (p *pod) removeBundle(l *life) {
	err := os.RemoveAll(l.bundle)
	if left := p.world.groups(l.id); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("its cgroups are left: %v", left))
	}
	if err != nil {
		p.world.t.Errorf("%s was deleted: %v; before that\n%s", l.id, err, p.world.story(l.id))
	}
}

// groups returns the cgroups of a container.
func (w *world) groups(id string) []string {
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + w.cgroup(id))
	if err != nil {
		w.t.Error(err)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + w.cgroup(id)); err == nil {
		groups = append(groups, "/sys/fs/cgroup"+w.cgroup(id))
	}
	return groups
}

// end ends the shim, which has one container left.
func (p *pod) end() {
	p.patient.cut()
	ctx, cancel := within()
	defer cancel()
	select {
	case <-p.Done():
		p.world.t.Errorf("the shim %s has hung up by itself; its log ends with\n%s", p.id, tail(p.Log.String()))
	default:
	}
	if _, err := p.End(ctx); err != nil {
		p.world.t.Errorf("end the shim %s: %v", p.id, err)
	}
	if p.world.t.Failed() {
		p.world.t.Logf("the log of %s ends with\n%s", p.id, tail(p.Log.String()))
	}
}

// last ends the first container.
func (p *pod) last(ctx context.Context) error {
	if _, err := p.Kill(ctx, &task.KillRequest{ID: p.id, Signal: 9}); err != nil {
		return err
	}
	if _, err := p.Wait(ctx, &task.WaitRequest{ID: p.id}); err != nil {
		return err
	}
	_, err := p.Delete(ctx, &task.DeleteRequest{ID: p.id})
	return err
}

// tail returns the last lines of a log.
func tail(log string) string {
	lines := strings.Split(log, "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// clear removes what the test and the runtimes have made. If the test has failed there may be
// mounts of the host's own directories: nothing is removed before they are gone.
func (w *world) clear() {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(w.dir))
	if err != nil {
		w.t.Errorf("read mounts: %v", err)
		return
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH); err != nil {
			w.t.Errorf("unmount %s: %v; %s is not removed", mounts[i].Mountpoint, err, w.dir)
			return
		}
	}
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Errorf("remove the directory of the test: %v", err)
	}
	for _, dir := range append(w.groups(""), filepath.Join("/run/containerd/runc", w.name)) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Errorf("remove what the runtime has made: %v", err)
		}
	}
}

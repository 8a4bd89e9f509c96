// Package direct drives the real shim binary over ttrpc, with real runtimes and no manager.
package direct

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
	"holdfast/test/leak"
	"holdfast/test/order"
)

// limit bounds each wait of a test. It is generous, since machines are shared, and where the binaries
// come from elsewhere emulated.
var limit = map[bool]time.Duration{false: 30 * time.Second, true: 3 * time.Minute}[os.Getenv(binariesVariable) != ""]

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// lab is a shim with its directory and sockets; at the end of the test the shim is ended, its
// events are checked for order, and nothing may be left.
type lab struct {
	*client.Session
	t      *testing.T
	dir    string
	name   string // unique on this machine: the namespace, and the parent of the cgroups
	watch  *leak.Watch
	opts   *options.Options
	relax  []order.Option
	ids    []string // of all bundles
	binary string   // of the shim
	killed bool     // the test has ended the shim itself, and cleans up
	parent string   // of all cgroups of the test
	// history, if not nil, returns what is to be checked for order of the events that arrived.
	history func([]client.Event) []client.Event
}

type labConfig struct {
	id      string // of the first container; "" = c1
	bundle  client.BundleConfig
	options *options.Options
	bare    bool   // start the shim as CRI-O does: without any address, with the legacy protocol
	parent  string // where the test makes its cgroups; "" = /holdfast-test
	relax   []order.Option
	binary  string // of the shim; "" = shimBinary
	// edit, if not nil, changes how the shim is started and its containers are cleaned up.
	edit func(*client.StartConfig)
}

// newLab starts a shim for one bundle. Nothing has been created yet.
func newLab(t *testing.T, cfg labConfig) *lab {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv(userVariable) == "" {
		t.Skip("needs root: runs containers")
	}
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.id == "" {
		cfg.id = "c1"
	}
	if cfg.binary == "" {
		cfg.binary = shimBinary
	}
	l := &lab{t: t, dir: dir, name: filepath.Base(dir), opts: cfg.options, relax: cfg.relax, binary: cfg.binary,
		parent: cmp.Or(cfg.parent, "/holdfast-test")}
	if runtime := os.Getenv(runtimeVariable); runtime != "" && l.opts == nil {
		l.opts = &options.Options{BinaryName: runtime}
	}
	// Clean-up runs backwards: end the shim, look for leaks, remove the directory.
	t.Cleanup(l.remove)
	l.watch = leak.Check(t, leak.Mounts(dir), leak.Sockets(filepath.Join(dir, "s")), leak.Cgroups(l.cgroup("")))
	l.bundle(cfg.id, cfg.bundle)
	launch := client.Launch
	if cfg.bare {
		launch = launchBare
	}
	start := l.startConfig(cfg.id)
	if cfg.edit != nil {
		cfg.edit(&start)
	}
	if l.Session, err = launch(within(t), dir, start, &tail{t: t}); err != nil {
		t.Fatal(err)
	}
	l.watch.Also(leak.Pid(l.pid()))
	t.Cleanup(l.end)
	return l
}

// launchBare is Launch without a manager that listens.
func launchBare(ctx context.Context, _ string, cfg client.StartConfig, log io.Writer) (*client.Session, error) {
	cfg.Legacy, cfg.SocketDir, cfg.Options = true, "", nil
	s := &client.Session{Config: cfg}
	var err error
	if s.Log, err = client.OpenLog(cfg.Bundle, log); err != nil {
		return nil, err
	}
	if s.Result, err = client.Start(ctx, cfg); err != nil {
		return nil, err
	}
	if s.Shim, err = client.Dial(ctx, s.Result.Address); err != nil {
		return nil, err
	}
	s.Namespace, s.Version = cfg.Namespace, 2
	return s, nil
}

func (l *lab) startConfig(id string) client.StartConfig {
	return client.StartConfig{
		Binary: l.binary, ID: id, Namespace: l.name, Bundle: filepath.Join(l.dir, id),
		SocketDir: filepath.Join(l.dir, "s"), Options: l.any(), Debug: true,
	}
}

// cgroup is the path of a container's cgroup in each hierarchy.
func (l *lab) cgroup(id string) string { return filepath.Join(l.parent, l.name, id) }

// tail keeps what the shim logs for the case that the test fails.
type tail struct{ t *testing.T }

func (w *tail) Write(p []byte) (int, error) { return w.t.Output().Write(p) }

func (l *lab) pid() int {
	l.t.Helper()
	c, err := l.Connect(within(l.t), &task.ConnectRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	return int(c.GetShimPid())
}

// end does what a manager does at the end: the last container was deleted.
func (l *lab) end() {
	if l.killed {
		return
	}
	if _, err := l.End(context.Background()); err != nil {
		l.t.Errorf("end of the shim: %v", err)
	}
	for _, id := range l.ids {
		if id != l.Config.ID {
			l.cleanUp(id)
		}
	}
	if l.Events == nil {
		return
	}
	events := l.Events.All()
	if l.history != nil {
		events = l.history(events)
	}
	order.Verify(l.t, events, l.relax...)
}

// cleanUp runs the delete action for a container, as containerd does for each.
func (l *lab) cleanUp(id string) *task.DeleteResponse {
	l.t.Helper()
	cfg := l.Config
	cfg.ID, cfg.Bundle = id, filepath.Join(l.dir, id)
	answer, warnings, err := client.Delete(context.Background(), cfg)
	if err != nil || warnings != "" {
		l.t.Errorf("delete action for %s: %v; it says %q", id, err, warnings)
	}
	return answer
}

// remove removes what the test and the runtimes have made. The tree may hold mounts of the host's
// own directories if a test has failed: nothing is removed before they are gone.
func (l *lab) remove() {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(l.dir))
	if err != nil {
		l.t.Errorf("read mounts: %v", err)
		return
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH); err != nil {
			l.t.Errorf("unmount %s: %v; %s is not removed", mounts[i].Mountpoint, err, l.dir)
			return
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("remove the directory of the test: %v", err)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + l.cgroup(""))
	if err != nil {
		l.t.Error(err)
	}
	for _, dir := range append(groups, "/sys/fs/cgroup"+l.cgroup(""), filepath.Join("/run/containerd/runc", l.name)) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.t.Errorf("remove what the runtime has made: %v", err)
		}
	}
}

// any returns the options as a manager sends them.
func (l *lab) any() *anypb.Any {
	if l.opts == nil {
		return nil
	}
	return pack(l.t, l.opts)
}

// pack returns m as a manager sends it: with a bare type name.
func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}

// bundle makes the bundle of a container.
func (l *lab) bundle(id string, cfg client.BundleConfig) string {
	l.t.Helper()
	dir := filepath.Join(l.dir, id)
	if cfg.CgroupsPath == "" {
		cfg.CgroupsPath = l.cgroup(id)
	}
	if err := client.NewBundle(dir, cfg); err != nil {
		l.t.Fatal(err)
	}
	l.ids = append(l.ids, id)
	return dir
}

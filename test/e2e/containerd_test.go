package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A containerd is one private containerd. Its methods may be used by one test at a time.
type containerd struct {
	version   string
	namespace string // also the name of our parent cgroup and of runc's root, which all tests share
	tasks     string // the namespace of the tasks: that, or with cri Kubernetes' own
	dir       string // everything containerd writes
	socket    string
	isolated  bool     // in a mount namespace of its own, see isolate
	crashes   bool     // shims are going to be killed, see crashes
	cri       bool     // with the interface for the kubelet, see withCRI
	metrics   string   // address for Prometheus; empty: none
	theirs    []string // containers of containerd's own shim, which does not keep the order of events

	conn   *grpc.ClientConn
	events *events

	daemon *exec.Cmd // nil while stopped
	exited chan struct{}

	mu  sync.Mutex // guards what follows
	ids []string   // of all containers ever named here
}

// An option changes a containerd before it is started.
type option func(*containerd)

// isolate runs containerd, and so its shims and containers, in a mount namespace of its own where
// a host with cgroup v1 has no /sys/fs/cgroup/unified: Debian 12's crun refuses to work where the
// v2 part has controllers too.
func isolate(c *containerd) { c.isolated = true }

// crashes says that the test kills shims. What a shim's end leaves out containerd makes up, and
// some of it twice (contract 2.3), so that the order of the events is not checked.
func crashes(c *containerd) { c.crashes = true }

// withCRI has containerd serve the kubelet's interface, with our shim for all pods.
func withCRI(c *containerd) { c.cri, c.tasks = true, "k8s.io" }

// running holds every containerd that a test is using.
var running sync.Map

// abandon stops and removes everything at once: somebody has interrupted the tests.
func abandon() {
	running.Range(func(c, _ any) bool {
		if err := c.(*containerd).clean(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return true
	})
}

// count makes names unique within this process.
var count atomic.Int64

// launch starts a private containerd and imports the test image. The test's cleanup checks that
// the test left nothing behind, and stops containerd.
func launch(t *testing.T, version string, options ...option) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf-")
	if err != nil {
		t.Fatal(err)
	}
	c := &containerd{
		version:   version,
		namespace: fmt.Sprintf("hf-%d-%d", os.Getpid(), count.Add(1)),
		dir:       dir,
		socket:    filepath.Join(dir, "c.sock"),
	}
	c.tasks = c.namespace
	for _, set := range options {
		set(c)
	}
	running.Store(c, nil)
	t.Cleanup(func() {
		c.finish(t)
		running.Delete(c)
	})
	c.install(t)
	c.configure(t)
	c.conn, err = grpc.NewClient("unix://"+c.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c.start(t)
	c.ok(t, "image", "import", built.image)
	return c
}

// tool returns the path of a program that belongs to this containerd's version.
func (c *containerd) tool(name string) string {
	if c.version == "1.6" {
		return filepath.Join("/usr/bin", name)
	}
	return filepath.Join(built.new, name)
}

// bin is the directory that comes first in containerd's PATH.
func (c *containerd) bin() string { return filepath.Join(c.dir, "bin") }

// install puts the shim into bin under each of its names.
func (c *containerd) install(t *testing.T) {
	t.Helper()
	shim := built.shim
	if upstream {
		shim = c.tool("containerd-shim-runc-v2")
	}
	binary, err := os.ReadFile(shim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.bin(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.runtimes() {
		if err := os.WriteFile(r.binary, binary, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// configure writes containerd's configuration, in the newest format that its version reads.
func (c *containerd) configure(t *testing.T) {
	t.Helper()
	metrics := ""
	if c.metrics != "" {
		metrics = "[metrics]\naddress = \"" + c.metrics + "\"\n"
	}
	format := 3
	if c.version == "1.6" {
		format = 2
	}
	disabled := ""
	if !c.cri {
		for _, plugin := range criPlugins[format] {
			disabled += fmt.Sprintf("\t%q,\n", plugin)
		}
	}
	config := fmt.Sprintf(`
version = %[5]d
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = [
%[3]s	"io.containerd.internal.v1.tracing",
	"io.containerd.nri.v1.nri",
	"io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "%[2]s"
[debug]
level = "debug"
[plugins."io.containerd.internal.v1.opt"]
path = "%[1]s/opt"
%[4]s`, c.dir, c.socket, disabled, metrics, format)
	if c.cri {
		config += c.criConfig(format)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts the daemon, waits until it answers, and follows its events.
func (c *containerd) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, "containerd.log"),
		os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	args := []string{c.tool("containerd"), "--config", filepath.Join(c.dir, "config.toml")}
	if c.isolated {
		script, err := filepath.Abs("../without-unified")
		if err != nil {
			t.Fatal(err)
		}
		args = append([]string{script}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PATH="+c.bin()+":/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { // ends when the daemon does
		_ = cmd.Wait()
		close(exited)
	}()
	c.daemon, c.exited = cmd, exited

	eventually(t, func() error {
		select {
		case <-exited:
			t.Fatalf("containerd %s ended: %v", c.version, cmd.ProcessState)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := version.NewVersionClient(c.conn).Version(ctx, &emptypb.Empty{})
		return err
	})
	c.events = follow(t, c.conn, c.tasks, c.events)
}

// stop ends the daemon as an administrator would. Containers live on.
func (c *containerd) stop(t *testing.T) { c.end(t, syscall.SIGTERM) }

// kill ends the daemon without warning. Containers live on.
func (c *containerd) kill(t *testing.T) { c.end(t, syscall.SIGKILL) }

// whileAway kills the daemon, lets the container whose process has that pid end, which waits for a file,
// and starts the daemon again.
func (c *containerd) whileAway(t *testing.T, pid int, file string) {
	t.Helper()
	c.kill(t)
	touch(t, pid, file)
	eventually(t, func() error {
		if alive(pid) {
			return fmt.Errorf("init %d is alive", pid)
		}
		return nil
	})
	c.start(t)
}

func (c *containerd) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if c.events != nil { // else it has not got so far
		c.events.stop()
	}
	if err := c.daemon.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(patience):
		_ = c.daemon.Process.Kill()
		<-c.exited
		t.Errorf("containerd %s did not end within %v of %v", c.version, patience, sig)
	}
	c.daemon = nil
}

// id returns a container id that nobody has used.
func (c *containerd) id() string {
	id := fmt.Sprintf("c%d", count.Add(1))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = append(c.ids, id)
	return id
}

// named returns all ids so far.
func (c *containerd) named() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ids)
}

// bundle returns the directory of a container's bundle.
func (c *containerd) bundle(id string) string {
	return filepath.Join(c.dir, "state", "io.containerd.runtime.v2.task", c.tasks, id)
}

// finish is the end of every test with a containerd: nothing may be left.
func (c *containerd) finish(t *testing.T) {
	if c.daemon != nil {
		if err := poll(c.leftovers); err != nil {
			t.Error(err)
		}
		c.stop(t)
	}
	if c.events != nil && !c.crashes {
		c.events.verify(t, c.theirs...)
	}
	if c.conn != nil {
		_ = c.conn.Close()
	}
	if t.Failed() {
		t.Logf("end of the log of containerd %s:\n%s", c.version, c.tail())
	}
	if err := c.clean(); err != nil {
		t.Error(err)
	}
}

// tail returns the last lines of containerd's log, which holds the shims' logs too.
func (c *containerd) tail() string {
	log, err := os.ReadFile(filepath.Join(c.dir, "containerd.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(log), "\n")
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// unpackDocker returns the directory of Debian's Docker: 20.10, which knows no runtimes but those that
// have the name of containerd's own shim. So ours is installed in its place.
var unpackDocker = sync.OnceValues(func() (string, error) {
	return output("../unpack", "docker.io", "libdevmapper1.02.1")
})

// docker is a private dockerd on top of a private containerd.
type docker struct {
	*containerd
	programs string
	socket   string
}

// startDocker starts dockerd; the test's cleanup stops it. It gets no network.
func startDocker(t *testing.T, c *containerd) *docker {
	t.Helper()
	programs, err := unpackDocker()
	if err != nil {
		t.Fatal(err)
	}
	d := &docker{containerd: c, programs: programs, socket: filepath.Join(c.dir, "d.sock")}
	log, err := os.Create(filepath.Join(c.dir, "dockerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(programs, "usr/sbin/dockerd"), "--containerd", c.socket,
		"--containerd-namespace", c.namespace, "--containerd-plugins-namespace", c.namespace+"-plugins",
		"--host", "unix://"+d.socket, "--pidfile", filepath.Join(c.dir, "d.pid"),
		"--data-root", filepath.Join(c.dir, "docker"), "--exec-root", filepath.Join(c.dir, "docker-exec"),
		"--storage-driver", "vfs", "--cgroup-parent", "/"+c.namespace,
		"--bridge", "none", "--iptables=false", "--ip6tables=false")
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { // ends when the daemon does
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Errorf("dockerd did not end within %v", patience)
		}
		if t.Failed() {
			text, err := os.ReadFile(log.Name())
			t.Logf("log of dockerd: %v\n%s", err, text)
		}
	})
	eventually(t, func() error {
		select {
		case <-exited:
			t.Fatalf("dockerd ended: %v", cmd.ProcessState)
		default:
		}
		_, err := d.try("version")
		return err
	})
	return d
}

// try runs a command of docker and returns what it printed.
func (d *docker) try(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(d.programs, "usr/bin/docker"), args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket, "DOCKER_CONFIG="+d.dir)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("docker %q: %w: %s", args, err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func (d *docker) ok(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// importImage makes the test image known to docker, which cannot read the archive of the others.
func (d *docker) importImage(t *testing.T) {
	t.Helper()
	layer, err := busyboxLayer()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.dir, "layer.tar")
	if err := os.WriteFile(path, layer, 0o600); err != nil {
		t.Fatal(err)
	}
	d.ok(t, "import", path, image)
}

// state returns what dockerd thinks of a container: its status, exit status and whether it was killed
// for want of memory.
func (d *docker) state(t *testing.T, id string) string {
	t.Helper()
	return d.ok(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}", id)
}

func (d *docker) becomes(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := d.state(t, id); got != want {
			return fmt.Errorf("docker says %q of %s, want %q", got, id, want)
		}
		return nil
	})
}

func TestDocker(t *testing.T) {
	if upstream {
		t.Skip("shows what ours does")
	}
	c := launch(t, "1.6")
	d := startDocker(t, c)
	d.importImage(t)
	run := func(more ...string) []string {
		return append([]string{"run", "--network", "none"}, more...)
	}

	t.Run("life", func(t *testing.T) {
		_, err := d.try(run("--rm", image, "/bin/sh", "-c", "exit 7")...)
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("docker run: %v", err)
		}
		if got := d.ok(t, run("--rm", image, "/bin/sh", "-c", "echo hello")...); got != "hello" {
			t.Errorf("it said %q", got)
		}
	})
	t.Run("exec, pause, kill", func(t *testing.T) {
		id := d.ok(t, run("--detach", image, "/bin/sleep", "1000")...)
		if got := d.ok(t, "exec", id, "/bin/echo", "more"); got != "more" {
			t.Errorf("the exec said %q", got)
		}
		d.ok(t, "pause", id)
		d.becomes(t, id, "paused 0 false")
		d.ok(t, "unpause", id)
		d.ok(t, "kill", id)
		d.becomes(t, id, "exited 137 false")
		d.ok(t, "rm", id)
	})
	t.Run("memory", func(t *testing.T) {
		id := d.ok(t, run("--detach", "--memory", "48m", image, "/bin/sh", "-c", "x=a; while :; do x=$x$x; done")...)
		d.becomes(t, id, "exited 137 true")
		d.ok(t, "rm", id)
	})
	// An exit that containerd learns of before dockerd is there again is lost to dockerd, which asks nobody
	// what it has missed (managers.md, surprise 2): then the container is "running" for ever.
	for i := range 3 {
		t.Run(fmt.Sprint("exit while containerd is away ", i), func(t *testing.T) {
			id := d.ok(t, run("--detach", image, "/bin/sh", "-c", "while [ ! -e /stop ]; do sleep 0.1; done; echo bye; exit 9")...)
			pid := 0
			if _, err := fmt.Sscan(d.ok(t, "inspect", "--format", "{{.State.Pid}}", id), &pid); err != nil {
				t.Fatal(err)
			}
			c.whileAway(t, pid, "/stop")
			d.becomes(t, id, "exited 9 false")
			if got := d.ok(t, "logs", id); got != "bye" {
				t.Errorf("its log: %q", got)
			}
			if got := d.ok(t, "wait", id); got != "9" {
				t.Errorf("docker wait says %q", got)
			}
			d.ok(t, "rm", id)
		})
	}
}

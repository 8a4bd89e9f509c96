package direct

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// secret is the value of a variable that the manager has.
const secret = "hunter2-of-the-manager"

// spy returns a script that notes the environment and the descriptors of who runs it, in a file of
// its own in dir, and then goes on as rest says.
func spy(t *testing.T, dir, name, rest string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	script := "#!/bin/sh\n{ echo ran $0; env; ls -l /proc/$$/fd; } >" + path + ".$$.seen 2>&1\n" + rest + "\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The manager has a secret in its environment and a directory open, as descriptor 200, which it
// does not close when it starts us. Neither gets to the daemon, the runtime, a hook, a logger or
// the container, nor do they when the delete action runs the runtime. GOMAXPROCS gets to
// the runtime and the hooks, as the manager has set it.
func TestNothingOfTheManagersIsPassedOn(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("REGISTRY_PASSWORD", secret)
	leak200(t, dir)
	hook := spy(t, dir, "hook", "cat >/dev/null")
	cfg := sh("env; ls -l /proc/self/fd; exec sleep 1000")
	cfg.Edit = func(s *specs.Spec) {
		hooks := []specs.Hook{{Path: hook}}
		s.Hooks = &specs.Hooks{CreateRuntime: hooks, Poststop: hooks}
	}
	l := newLab(t, labConfig{
		bundle: cfg, options: &options.Options{BinaryName: spy(t, dir, "runtime", `exec runc "$@"`)},
	})
	logged := filepath.Join(dir, "logged")
	uri := (&url.URL{
		Scheme: "binary", Path: spy(t, dir, "logger", "exec 5>&-; exec cat <&3 >"+logged),
	}).String()
	r := l.createRequest("c1", nil)
	r.Stdout, r.Stderr = uri, uri
	if _, err := l.Create(within(t), r); err != nil {
		t.Fatal(err)
	}
	l.mustStart("c1", "")
	streams := l.io("e1", client.IOConfig{})
	l.mustExec("c1", "e1", sh("env; ls -l /proc/self/fd"), streams)
	l.mustStart("c1", "e1")
	l.wait("c1", "e1")
	l.clean("the exec", l.output(streams.Out))
	l.mustDelete("c1", "e1")
	pid := l.pid()
	l.clean("the daemon", l.read(fmt.Sprintf("/proc/%d/environ", pid))+strings.Join(l.census().Links, "\n"))
	if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/200", pid)); err == nil {
		t.Error("the daemon has descriptor 200")
	}
	// Killed now, it leaves the container to the delete action, and so its poststop hook.
	l.crashAndCleanUp()
	l.clean("the container", l.read(logged))
	seen, err := filepath.Glob(filepath.Join(dir, "*.seen"))
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, file := range seen {
		who, _, _ := strings.Cut(filepath.Base(file), ".")
		ran[who]++
		content := l.read(file)
		l.clean(who, content)
		if who != "logger" && !strings.Contains(content, "\nGOMAXPROCS=2\n") {
			t.Errorf("%s has not the GOMAXPROCS of the manager:\n%s", who, content)
		}
	}
	if ran["runtime"] < 4 || ran["hook"] < 2 || ran["logger"] != 1 {
		t.Errorf("these have run: %v", ran)
	}
}

// leak200 opens dir as descriptor 200, which children inherit.
func leak200(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Dup2(int(f.Fd()), 200); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(200); err != nil {
			t.Error(err)
		}
	})
}

// clean checks what was seen in a process.
func (l *lab) clean(who, seen string) {
	l.t.Helper()
	if !strings.Contains(seen, "=") {
		l.t.Errorf("%s: nothing was seen: %q", who, seen)
	}
	if strings.Contains(seen, secret) || strings.Contains(seen, " 200 -> ") {
		l.t.Errorf("%s has what is the manager's:\n%s", who, seen)
	}
}

// crashAndCleanUp kills the shim and does what the manager does then for c1.
func (l *lab) crashAndCleanUp() {
	l.t.Helper()
	l.killed = true
	if err := syscall.Kill(l.Pid(), syscall.SIGKILL); err != nil {
		l.t.Fatal(err)
	}
	<-l.Done()
	l.cleanUp("c1")
	l.noStrays()
	l.removeSocket()
	l.Close()
}

// Whatever a shim has open, no process that it starts gets by accident: at a busy moment all of
// its descriptors but the standard streams are close-on-exec.
func TestDescriptorsOfTheShimAreCloseOnExec(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper()})
	l.run("c1", l.io("c1", client.IOConfig{Stdin: true}))
	terminal := sleeper()
	terminal.Terminal = true
	l.mustExec("c1", "e1", terminal, l.io("e1", client.IOConfig{Terminal: true}))
	l.mustStart("c1", "e1")
	logger := filepath.Join(l.dir, "logger")
	if err := os.WriteFile(logger, []byte("#!/bin/sh\nexec 5>&-\nexec cat <&3 >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.mustExec("c1", "e2", sleeper(), &client.IO{Stdout: "binary://" + logger, Stderr: "file://" + filepath.Join(l.dir, "log")})
	l.mustStart("c1", "e2")
	dir := fmt.Sprintf("/proc/%d/fdinfo", l.pid())
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 12 {
		t.Fatalf("%d descriptors, %v", len(entries), err)
	}
	for _, e := range entries {
		info, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		_, text, _ := strings.Cut(string(info), "flags:")
		text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
		flags, err := strconv.ParseUint(text, 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Name()) == 1 && e.Name() <= "2" {
			continue
		}
		if flags&unix.O_CLOEXEC == 0 {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", l.pid(), e.Name())) // for the message only
			t.Errorf("descriptor %s, %s, is inherited", e.Name(), link)
		}
	}
	l.finish("c1")
}

// What we write is for its owner only, but for what managers and people read, whatever the umask is.
func TestModesOfFiles(t *testing.T) {
	for _, umask := range []int{0, 0o077} {
		t.Run(fmt.Sprintf("%03o", umask), func(t *testing.T) {
			old := unix.Umask(umask)
			t.Cleanup(func() { unix.Umask(old) })
			cfg := sh("tail /dev/zero")
			cfg.MemoryLimit = 16 << 20
			l := newLab(t, labConfig{bundle: cfg})
			r := l.createRequest("c1", nil)
			if _, err := l.Create(within(t), r); err != nil {
				t.Fatal(err)
			}
			crash := l.mode(filepath.Join(l.dir, "c1", "panic.log"))
			l.mustStart("c1", "")
			if got := l.wait("c1", ""); got != 137 {
				t.Errorf("exit status %d", got)
			}
			modes := map[string]os.FileMode{"panic.log": crash}
			for _, name := range []string{"address", "options.json", "runtime", "exit.json", "oom"} {
				modes[name] = l.mode(filepath.Join(l.dir, "c1", name))
			}
			for name, got := range modes {
				want := os.FileMode(0o600)
				if name == "address" {
					want = 0o644
				}
				if got != want {
					t.Errorf("%s has mode %v, want %v", name, got, want)
				}
			}
			l.mustDelete("c1", "")
		})
	}
}

func (l *lab) mode(path string) os.FileMode {
	l.t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return info.Mode()
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/client"
)

// runLimit is how long one call of holdfast may take in a test.
const runLimit = 60 * time.Second

// result is what one call of holdfast has done.
type result struct {
	status         int
	stdout, stderr string
}

// runHoldfast runs the program to its end, and verifies that it leaves nothing: no file, no mount,
// no process that works in its directory.
func runHoldfast(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	cmd, tmp := holdfast(t, deadline(t, runLimit), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	leftNothing(t, tmp)
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// leftNothing looks at a directory that a program has used for everything it makes, and for what is
// named after it.
func leftNothing(t *testing.T, tmp string) {
	t.Helper()
	entries, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", filepath.Join(tmp, e.Name()))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, tmp) {
			t.Errorf("left behind: mount %s", line)
		}
	}
	noCgroup(t, strings.ReplaceAll(strings.Trim(tmp, "/"), "/", "-")+"*")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := processesIn(t, tmp)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind: processes %v", left)
			return
		}
	}
}

// noCgroup waits until no hierarchy has a cgroup of that name: a container that was left behind
// would be in it.
func noCgroup(t *testing.T, pattern string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var found []string
		for _, root := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			dirs, err := filepath.Glob(root + pattern)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, dirs...)
		}
		if len(found) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind: cgroups %v", found)
			return
		}
	}
}

// processesIn returns the processes that name dir in their command line or environment, or work in
// it. Zombies do none of this.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		if filepath.Base(path) == strconv.Itoa(os.Getpid()) {
			continue
		}
		cwd, _ := os.Readlink(path + "/cwd") // a process that has gone has none of the three
		args, _ := os.ReadFile(path + "/cmdline")
		env, _ := os.ReadFile(path + "/environ")
		if strings.HasPrefix(cwd, dir) || bytes.Contains(args, []byte(dir)) || bytes.Contains(env, []byte(dir)) {
			found = append(found, filepath.Base(path)+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

// topics returns the events in a report, in order.
func topics(report string) []string {
	var found []string
	for line := range strings.Lines(report) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/tasks/") {
				found = append(found, field)
			}
		}
	}
	return found
}

// lifeOf is what happens to a container that nobody disturbs.
var lifeOf = []string{"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"}

// newBundle makes a bundle whose process runs a shell script. At the end of the test its container
// must be gone.
func newBundle(t *testing.T, script string, edit func(*client.BundleConfig)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "box")
	cfg := client.BundleConfig{Args: []string{"sh", "-c", script}}
	if edit != nil {
		edit(&cfg)
	}
	if err := client.NewBundle(dir, cfg); err != nil {
		t.Fatal(err)
	}
	spec, err := client.ReadSpec(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noCgroup(t, strings.TrimPrefix(spec.Linux.CgroupsPath, "/")) })
	return dir
}

// contents returns every file of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out, err := exec.Command("find", dir, "-mindepth", "1", "-printf", "%P %y %m\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(kind, "f") {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			kind = string(data)
		}
		found[name] = kind
	}
	return found
}

// started starts holdfast in the background and waits until its container says that it runs.
func started(t *testing.T, args ...string) (cmd *exec.Cmd, tmp string, stderr *bytes.Buffer) {
	t.Helper()
	cmd, tmp = holdfast(t, deadline(t, runLimit), args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr = &bytes.Buffer{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := readUntil(stdout, "running"); err != nil {
		t.Fatalf("%v after %q; %s", err, line, stderr)
	}
	return cmd, tmp, stderr
}

// shimIn returns the pid of the shim that works in dir.
func shimIn(t *testing.T, dir string) int {
	t.Helper()
	for _, p := range processesIn(t, dir) {
		pid, args, _ := strings.Cut(p, " ")
		if !strings.HasPrefix(filepath.Base(strings.Fields(args + " -")[0]), "containerd-shim-") {
			continue
		}
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatal("no shim is running")
	return 0
}

// readUntil reads r until text has come.
func readUntil(r interface{ Read([]byte) (int, error) }, text string) (string, error) {
	var got bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), text) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			return got.String(), fmt.Errorf("wait for %q: %w", text, err)
		}
	}
	return got.String(), nil
}

// addressIn returns the address in what run -d has printed.
func addressIn(t *testing.T, out []byte) string {
	t.Helper()
	_, address, ok := strings.Cut(string(out), "its shim is at ")
	if !ok {
		t.Fatalf("no address in %s", out)
	}
	return strings.TrimSpace(address)
}

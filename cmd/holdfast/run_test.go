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

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/test/leak"
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

// leftNothing looks at a directory that a program has used for everything it makes.
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

// newBundle makes a bundle whose process runs a shell script.
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
	return dir
}

func TestRunGreetsAndReports(t *testing.T) {
	needRoot(t)
	leak.Check(t, leak.Sockets("/run/containerd/s"))
	got := runHoldfast(t, "", "run", "--id", "greeter")
	if got.status != 7 {
		t.Errorf("status %d, want that of the container, 7", got.status)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Hello", strings.TrimSpace(string(kernel)), "user      root", "pid       1\n", "hostname  holdfast"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in the greeting %q", want, got.stdout)
		}
	}
	if diff := cmp.Diff(lifeOf, topics(got.stderr)); diff != "" {
		t.Errorf("events: %s\n%s", diff, got.stderr)
	}
	if !strings.Contains(got.stderr, "exit status 7\n") || strings.Contains(got.stderr, "holdfast:") {
		t.Errorf("report: %s", got.stderr)
	}
}

func TestRunReadsABundleOnly(t *testing.T) {
	needRoot(t)
	bundle := newBundle(t, "cat /mnt/file; echo mine >/new; exit 3", func(cfg *client.BundleConfig) {
		cfg.Mounts = []specs.Mount{{Destination: "/mnt", Source: "shared", Type: "none", Options: []string{"bind", "ro"}}}
	})
	shared := filepath.Join(bundle, "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "file"), []byte("from the bundle\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := contents(t, bundle)
	got := runHoldfast(t, "", "run", bundle)
	if got.status != 3 || got.stdout != "from the bundle\n" {
		t.Errorf("status %d, output %q; %s", got.status, got.stdout, got.stderr)
	}
	after := contents(t, bundle)
	if after["rootfs/new"] != "mine\n" {
		t.Error("the root directory is not that of the bundle")
	}
	delete(after, "rootfs/new")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the bundle has changed: %s", diff)
	}
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

func TestRunPassesOnStdin(t *testing.T) {
	needRoot(t)
	bundle := newBundle(t, "wc -c; echo errors >&2", nil)
	if got := runHoldfast(t, "12345", "run", "-i", bundle); got.status != 0 || got.stdout != "5\n" ||
		!strings.HasPrefix(got.stderr, "errors\n") {
		t.Errorf("with -i: %+v", got)
	}
	if got := runHoldfast(t, "12345", "run", bundle); got.status != 0 || got.stdout != "0\n" {
		t.Errorf("without -i: %+v", got)
	}
}

func TestRunPassesOnManyBytes(t *testing.T) {
	needRoot(t)
	got := runHoldfast(t, "", "run", newBundle(t, "head -c 20000000 /dev/zero", nil))
	if len(got.stdout) != 20_000_000 || got.status != 0 {
		t.Errorf("%d bytes, status %d: %s", len(got.stdout), got.status, got.stderr)
	}
}

func TestFailedRunExplainsAndLeavesNothing(t *testing.T) {
	needRoot(t)
	rows := []struct {
		name string
		args []string
		want string
	}{
		{"no such runtime", []string{"--runtime", "nonsense"}, `"nonsense"`},
		{"no such program", []string{newBundle(t, "", func(c *client.BundleConfig) { c.Args = []string{"/nonsense"} })}, "/nonsense"},
		{"no such terminal program", []string{"-t", newBundle(t, "", func(c *client.BundleConfig) { c.Args = []string{"/nonsense"} })}, "/nonsense"},
		{"shim is no shim", []string{"--shim", "/bin/true"}, "start shim"},
		{"detached", []string{"-d", "--runtime", "nonsense"}, `"nonsense"`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := runHoldfast(t, "", append([]string{"run"}, row.args...)...)
			if got.status != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, row.want) {
				t.Errorf("%q is not in %+v", row.want, got)
			}
		})
	}
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

func TestSignalKillsAndLeavesNothing(t *testing.T) {
	needRoot(t)
	bundle := newBundle(t, "trap '' TERM INT; echo running; while :; do sleep 1; done", nil)
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, tmp, stderr := started(t, "run", bundle)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() // the status is looked at
			if got := cmd.ProcessState.ExitCode(); got != 137 {
				t.Errorf("status %d, want 137: %s", got, stderr)
			}
			if diff := cmp.Diff(lifeOf, topics(stderr.String())); diff != "" {
				t.Errorf("events: %s", diff)
			}
			leftNothing(t, tmp)
		})
	}
}

func TestDeadShimIsCleanedUpAfter(t *testing.T) {
	needRoot(t)
	cmd, tmp, stderr := started(t, "run", newBundle(t, "echo running; exec sleep 1000", nil))
	pid := shimIn(t, tmp)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // the status is looked at
	if got := cmd.ProcessState.ExitCode(); got != exitFailed || !strings.Contains(stderr.String(), "closed") {
		t.Errorf("status %d: %s", got, stderr)
	}
	leftNothing(t, tmp)
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

func TestSecondSignalDoesNotWaitForTheShim(t *testing.T) {
	needRoot(t)
	cmd, tmp, stderr := started(t, "run", newBundle(t, "echo running; exec sleep 1000", nil))
	// A stopped shim answers nothing, the kill included.
	pid := shimIn(t, tmp)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Wait() // the status is looked at
	if got := cmd.ProcessState.ExitCode(); got != exitFailed {
		t.Errorf("status %d: %s", got, stderr)
	}
	leftNothing(t, tmp)
}

func TestDetachedContainerAnswersTheVerbs(t *testing.T) {
	needRoot(t)
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--id", "c1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := ""
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "address" {
			address = fields[1]
		}
	}
	cgroups := "io.containerd.cgroups.v"
	rows := []struct {
		args   string
		status int
		stdout []string // in the output
		stderr string
	}{
		{"connect", 0, []string{`"shimPid"`}, ""},
		{"connect c1", 0, []string{`"taskPid"`}, ""},
		{"state c1", 0, []string{`"RUNNING"`, `"id": "c1"`}, ""},
		{"state c2", exitFailed, nil, "not found"},
		{"pids c1", 0, []string{`"processes"`, `"pid"`}, ""},
		{"stats c1", 0, []string{cgroups, `"memory"`}, ""},
		{"exec c1 sh -c exit\t5", 5, nil, ""},
		{"exec c1 echo -h", 0, []string{"-h\n"}, ""},
		{"exec c1", exitFailed, nil, "name a command"},
		{"exec c1 /nonsense", exitFailed, nil, "/nonsense"},
		{"kill c1 --exec e9", exitFailed, nil, "e9"},
		{"delete c1", exitFailed, nil, "running"},
		{"kill c1 --signal 0", 0, nil, ""},
		{"kill --all c1", 0, nil, ""},
		{"wait c1", 0, []string{`"exitStatus": 137`}, ""},
		{"delete c1", 0, []string{`"exitStatus": 137`}, ""},
		{"state c1", exitFailed, nil, "not found"},
		{"shutdown", 0, nil, ""},
	}
	for _, row := range rows {
		var args []string
		for _, a := range strings.Split(row.args, " ") {
			args = append(args, strings.ReplaceAll(a, "\t", " "))
		}
		// After the verb, so that it is not taken for a part of a command.
		args = append([]string{args[0], "--address", address}, args[1:]...)
		got := runHoldfast(t, "", args...)
		if got.status != row.status || (row.stderr == "") != (got.stderr == "") || !strings.Contains(got.stderr, row.stderr) {
			t.Errorf("holdfast %s: %+v, want status %d", row.args, got, row.status)
		}
		for _, want := range row.stdout {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("holdfast %s: %q is not in %q", row.args, want, got.stdout)
			}
		}
	}
	leftNothing(t, tmp)
}

func TestOlderShimRunsToo(t *testing.T) {
	needRoot(t)
	const shim = "/usr/bin/containerd-shim-runc-v2"
	if _, err := os.Stat(shim); err != nil {
		t.Skipf("needs %s: %v", shim, err)
	}
	got := runHoldfast(t, "", "run", "--legacy", "--shim", shim)
	if got.status != 7 || !strings.Contains(got.stdout, "Hello") {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(lifeOf, topics(got.stderr)); diff != "" {
		t.Errorf("events: %s\n%s", diff, got.stderr)
	}
}

func TestReportCountsFromEventToEvent(t *testing.T) {
	at := time.Unix(1000, 0)
	var b strings.Builder
	report(&b, 3, []client.Event{
		{Sent: at, Topic: "/tasks/oom"},
		{Sent: at.Add(1500 * time.Microsecond), Topic: "/tasks/paused"},
	})
	want := "\nexit status 3\n\n" +
		"      +ms  event                     pid  status\n" +
		"      0.0  /tasks/oom\n" +
		"      1.5  /tasks/paused\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestLogIsShownWhenItSaysSomething(t *testing.T) {
	log := "level=info msg=a\nlevel=warning msg=b\nlevel=error msg=c\ngoroutine 1"
	var some, all strings.Builder
	showLog(&some, log, false)
	showLog(&all, log, true)
	if got, want := some.String(), "shim: level=warning msg=b\nshim: level=error msg=c\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := strings.Count(all.String(), "shim: "); got != 4 {
		t.Errorf("%d lines, want 4", got)
	}
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

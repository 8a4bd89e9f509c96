package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
)

// newRootfs makes a root directory that holds nothing but a busybox.
func newRootfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunOfACommandInARootDirectory(t *testing.T) {
	needRoot(t)
	dir := newRootfs(t)
	// The flags behind the directory's are the command's.
	got := runHoldfast(t, "", "run", "--rm", "--rootfs", dir, "busybox", "sh", "-c", "busybox ls -1 /bin; echo mine >/file; exit 5")
	if got.status != 5 || got.stdout != "busybox\n" {
		t.Errorf("%+v", got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "mine\n" {
		t.Errorf("what the command wrote is %q, %v", text, err)
	}
	for _, row := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--rootfs", dir}, exitUsage, "because no command is given"},
		{[]string{"/bundle", "sh"}, exitUsage, `cannot run "sh": because the bundle /bundle says what runs in it; for a command of your own give --rootfs DIR`},
		{[]string{"--rootfs", "/nonsense", "sh"}, exitFailed, "/nonsense"},
	} {
		for _, verb := range []string{"run", "create"} {
			got := runHoldfast(t, "", append([]string{verb}, row.args...)...)
			if got.status != row.status || !strings.Contains(got.stderr, row.want) {
				t.Errorf("%s %v: no %q in %+v", verb, row.args, row.want, got)
			}
		}
	}
}

func TestCreatedContainerWaitsForStart(t *testing.T) {
	needRoot(t)
	id, begun := "create-"+rand.Text(), t.TempDir()
	bundle := newBundle(t, "echo >/mnt/begun; exit 3", func(cfg *client.BundleConfig) { cfg.Mounts = bindAt("/mnt", begun) })
	cmd, tmp := holdfast(t, deadline(t, runLimit), "create", "--id", id, bundle)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nholdfast start --address unix://") {
		t.Fatalf("%v: %s", err, out)
	}
	if r := runHoldfast(t, "", "state", id); !strings.Contains(r.stdout, `"status": "CREATED"`) {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(begun, "begun")); err == nil {
		t.Error("it has begun")
	}
	if r := runHoldfast(t, "", "start", id); r.status != 0 {
		t.Errorf("%+v", r)
	}
	if r := runHoldfast(t, "", "wait", id); !strings.Contains(r.stdout, `"exitStatus": 3`) {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(begun, "begun")); err != nil {
		t.Error(err)
	}
	for _, verb := range []string{"delete", "shutdown"} {
		if r := runHoldfast(t, "", verb, id); r.status != 0 {
			t.Errorf("%s: %+v", verb, r)
		}
	}
	leftNothing(t, tmp)
}

func TestDetachedRunIsRemovedWhenItHasExited(t *testing.T) {
	needRoot(t)
	id := "rm-" + rand.Text()
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--rm", "--id", id)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "holdfast delete") {
		t.Fatalf("%v: %s", err, out)
	}
	if r := runHoldfast(t, "", "kill", id); r.status != 0 {
		t.Errorf("%+v", r)
	}
	for end := time.Now().Add(runLimit); ; time.Sleep(10 * time.Millisecond) {
		entries, err := os.ReadDir(tmp)
		if err == nil && len(entries) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still there: %v, %v", entries, err)
		}
	}
	leftNothing(t, tmp)
}

// TestTopTellsWhoIsBusy has one process that computes and one that sleeps.
func TestTopTellsWhoIsBusy(t *testing.T) {
	id := detached(t, "runc")
	busy, _ := holdfast(t, deadline(t, runLimit), "exec", "--exec", "busy", id, "sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for end := time.Now().Add(runLimit); ; {
		r := runHoldfast(t, "", "top", "--once", id)
		lines = strings.Split(strings.TrimSpace(r.stdout), "\n")
		if r.status == 0 && len(lines) == 3 && strings.Contains(lines[1], "while :") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", r)
		}
	}
	var pid int
	var state string
	var share float64
	if _, err := fmt.Sscan(lines[1], &pid, &state, &share); err != nil || share <= 0 || state != "R" {
		t.Errorf("the busy one: %v: %s", err, lines[1])
	}
	if _, err := fmt.Sscan(lines[2], &pid, &state, &share); err != nil || share > 50 || !strings.Contains(lines[2], "sleep infinity") {
		t.Errorf("the one that sleeps: %v: %s", err, lines[2])
	}
	if r := runHoldfast(t, "", "kill", "--exec", "busy", id); r.status != 0 {
		t.Errorf("%+v", r)
	}
	_ = busy.Wait() // its status is that of the killed
}

func TestSharesOfAProcessorAreDifferences(t *testing.T) {
	at := time.Unix(1000, 0)
	last := topLook{at: at, rows: []topRow{{pid: 1, ticks: 100}, {pid: 2, ticks: 500}, {pid: 3, ticks: 900}}}
	now := topLook{at: at.Add(2 * time.Second), rows: []topRow{{pid: 1, ticks: 110}, {pid: 2, ticks: 600}, {pid: 3, ticks: 5}, {pid: 4, ticks: 70}}}
	now.compare(last)
	var got []string
	for _, r := range now.rows {
		got = append(got, fmt.Sprint(r.pid, " ", r.share))
	}
	if want := "2 50, 1 5, 3 0, 4 0"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}

func bindAt(to, from string) []specs.Mount {
	return []specs.Mount{{Destination: to, Source: from, Type: "none", Options: []string{"bind"}}}
}

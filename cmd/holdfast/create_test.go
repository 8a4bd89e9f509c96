package main

import (
	"crypto/rand"
	"encoding/json"
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
		usage  bool
		want   string
	}{
		{[]string{"--rootfs", dir}, exitFailed, true, "because no command is given"},
		{[]string{"/bundle", "sh"}, exitFailed, true, `cannot run "sh": because the bundle /bundle says what runs in it; for a command of your own give --rootfs DIR`},
		{[]string{"--rootfs", "/nonsense", "sh"}, exitFailed, false, "/nonsense"},
	} {
		for _, verb := range []string{"run", "create"} {
			got := runHoldfast(t, "", append([]string{verb}, row.args...)...)
			if verb == "create" && row.usage {
				row.status = exitUsage // no status of a container's
			}
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
	cmd.Stderr = nil
	out, err := cmd.Output()
	if err != nil || string(out) != id+"\n" {
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
	for _, verb := range []string{"top", "ps"} {
		var processes []struct {
			Pid          int
			Command      string
			Memory_bytes int64 //nolint:revive // as the JSON has it
		}
		r := runHoldfast(t, "", verb, "--json", id)
		if err := json.Unmarshal([]byte(r.stdout), &processes); err != nil || len(processes) != 2 || processes[0].Pid == 0 ||
			!strings.Contains(r.stdout, "sleep infinity") || processes[0].Memory_bytes < 1<<16 {
			t.Errorf("%s: %v: %+v", verb, err, r)
		}
	}
	if r := runHoldfast(t, "", "kill", "--exec", "busy", id); r.status != 0 {
		t.Errorf("%+v", r)
	}
	_ = busy.Wait() // its status is that of the killed
}

func TestSharesOfAProcessorAreDifferences(t *testing.T) {
	row := func(pid int, ticks uint64) topRow { return topRow{described: described{Pid: pid}, ticks: ticks} }
	at := time.Unix(1000, 0)
	last := topLook{at: at, rows: []topRow{row(1, 100), row(2, 500), row(3, 900)}}
	now := topLook{at: at.Add(2 * time.Second), rows: []topRow{row(1, 110), row(2, 600), row(3, 5), row(4, 70)}}
	now.compare(last)
	var got []string
	for _, r := range now.rows {
		got = append(got, fmt.Sprint(r.Pid, " ", r.CPUPercent))
	}
	if want := "2 50, 1 5, 3 0, 4 0"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}

func bindAt(to, from string) []specs.Mount {
	return []specs.Mount{{Destination: to, Source: from, Type: "none", Options: []string{"bind"}}}
}

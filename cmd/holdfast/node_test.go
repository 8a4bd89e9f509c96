package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/node"
)

// A container that runs is listed, and found by its id alone.
func TestRunningContainersAreFound(t *testing.T) {
	needRoot(t)
	id := "found-" + rand.Text()
	cmd, tmp := holdfast(t, deadline(t, runLimit), "run", "-d", "--id", id)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	var all inventory
	listed := runHoldfast(t, "", "ls", "--json")
	if err := json.Unmarshal([]byte(listed.stdout), &all); err != nil {
		t.Fatalf("%v: %s", err, listed.stdout)
	}
	var own *found
	for i, s := range all.Shims {
		if s.Group == id {
			own = &all.Shims[i]
		}
	}
	if own == nil || len(own.Containers) != 1 || own.Containers[0].ID != id || own.Containers[0].Status != "running" ||
		own.Containers[0].Pid == 0 || own.Pid == 0 || own.Private == 0 || own.Threads == 0 || own.Files == 0 || time.Since(own.Started) > time.Hour {
		t.Errorf("not as it should be: %+v", own)
	}
	table := runHoldfast(t, "", "ls").stdout
	if !strings.HasPrefix(table, "NAMESPACE") || !strings.Contains(table, id+" (running)") {
		t.Errorf("the table: %s", table)
	}
	if r := runHoldfast(t, "", "state", id); r.status != 0 || !strings.Contains(r.stdout, `"status": "RUNNING"`) {
		t.Errorf("state without an address: %+v", r)
	}
	if r := runHoldfast(t, "", "state", "no-"+id); r.status != exitFailed || !strings.Contains(r.stderr, "no running shim has a container of that id") {
		t.Errorf("state of nobody: %+v", r)
	}
	for _, verb := range []string{"kill", "wait", "delete", "shutdown"} {
		if r := runHoldfast(t, "", verb, id); r.status != 0 {
			t.Errorf("%s: %+v", verb, r)
		}
	}
	leftNothing(t, tmp)
}

func TestAHungShimHidesNoOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	got := ask(t.Context(), node.Shim{Address: "unix://" + path, Namespace: "n", Group: "g"})
	if took := time.Since(began); took > 5*askLimit {
		t.Errorf("took %v", took)
	}
	if len(got) != 1 || got[0].ID != "g" || !strings.Contains(got[0].Status, context.DeadlineExceeded.Error()) {
		t.Errorf("got %+v", got)
	}
	if got := ask(t.Context(), node.Shim{Group: "g"}); len(got) != 1 || got[0].Status != "its shim does not listen" {
		t.Errorf("deaf: %+v", got)
	}
}

func TestOnlyDeadSocketsAreCollected(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	listen := func(name string) *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path(name)})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		return l
	}
	listen("dead").Close()
	listen("new").Close()
	reborn := listen("reborn") // was dead when it was looked at
	defer reborn.Close()
	now := time.Now()
	n := node.Node{
		Sockets: []node.Socket{{Path: path("dead"), Changed: now.Add(-2 * settled)}, {Path: path("new"), Changed: now}, {Path: path("reborn")}},
		Bundles: []node.Bundle{{Path: "/bundle"}},
	}
	files := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	var out bytes.Buffer
	if err := collect(&out, n, false, now); err != nil || files() != "dead new reborn" ||
		!strings.Contains(out.String(), "nothing was removed") || !strings.Contains(out.String(), "/bundle") || strings.Contains(out.String(), path("new")) {
		t.Errorf("dry: %v, %s; left %s", err, &out, files())
	}
	out.Reset()
	err := collect(&out, n, true, now)
	if err == nil || !strings.Contains(err.Error(), "somebody listens on it now") || files() != "new reborn" || !strings.Contains(out.String(), "1 removed") {
		t.Errorf("with -yes: %v, %s; left %s", err, &out, files())
	}
	conn, err := net.Dial("unix", path("reborn"))
	if err != nil {
		t.Fatalf("the one that listens is not where it was: %v", err)
	}
	conn.Close()
}

func TestDoctorSeesWhatIsAmiss(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return filepath.Dir(path)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	broken := put("bin/runc", "#!/bin/sh\necho cannot run\nexit 3\n")
	for name, row := range map[string]struct {
		got  finding
		want verdict
		says string
	}{
		"no cgroups":     {lookAtCgroups(filepath.Join(dir, "none")), unfit, "mount -t cgroup2"},
		"hybrid":         {lookAtCgroups(put("hybrid/memory/x", "")[:len(dir)+7]), poor, "unified_cgroup_hierarchy"},
		"v2":             {lookAtCgroups(put("v2/cgroup.controllers", "cpu io memory pids\n")), fit, "cpu io memory pids"},
		"v2, no pids":    {lookAtCgroups(put("v2a/cgroup.controllers", "cpu io memory\n")), poor, "limits need pids"},
		"no sockets":     {lookAtSockets(filepath.Join(dir, "none")), fit, "not there yet"},
		"open sockets":   {lookAtSockets(open), unfit, "chmod go-w " + open},
		"large pipes":    {lookAtPipes(put("big/pipe-max-size", "1048576\n")), fit, "1024 KiB"},
		"small pipes":    {lookAtPipes(put("small/pipe-max-size", "65536\n")), poor, "fs.pipe-max-size=1048576"},
		"broken runtime": {lookAtRuntime(t.Context(), filepath.Join(broken, "runc"), unfit), unfit, "exit status 3: cannot run"},
		"no runtime":     {lookAtRuntime(t.Context(), filepath.Join(dir, "none"), unfit), unfit, "BinaryName"},
		"one is enough":  {lookAtRuntime(t.Context(), filepath.Join(dir, "none"), fit), fit, "not in PATH"},
	} {
		if row.got.verdict != row.want || !strings.Contains(row.got.fact+row.got.advice, row.says) || (row.got.advice == "") != (row.want == fit) {
			t.Errorf("%s: %+v", name, row.got)
		}
	}
}

// The doctor fails where the shim is missing, and says so.
func TestDoctorTellsByItsStatus(t *testing.T) {
	needRoot(t)
	for path, want := range map[string]int{programs + ":" + os.Getenv("PATH"): 0, "/usr/bin:/usr/sbin": 1} {
		t.Setenv("PATH", path)
		r := runHoldfast(t, "", "doctor")
		if r.status != want || want == 1 != strings.Contains(r.stdout, "install "+shimName) {
			t.Errorf("status %d, want %d: %s", r.status, want, r.stdout)
		}
	}
}

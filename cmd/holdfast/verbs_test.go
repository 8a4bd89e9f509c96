package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDetachedContainerAnswersTheVerbs(t *testing.T) {
	needRoot(t)
	debian := "/usr/bin/" + stockShim
	newest, err := exec.Command("../../test/build-containerd").Output()
	if err != nil {
		t.Fatalf("build containerd: %v", err)
	}
	for name, flags := range map[string][]string{
		"ours": nil, "ours started as of old": {"--legacy"}, "containerd-1.6": {"--legacy", "--shim", debian},
		"containerd-2.4": {"--shim", filepath.Join(strings.TrimSpace(string(newest)), stockShim)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(debian); err != nil && name == "containerd-1.6" {
				t.Skipf("needs Debian's shim: %v", err)
			}
			answersTheVerbs(t, flags, strings.HasPrefix(name, "ours"))
		})
	}
}

func answersTheVerbs(t *testing.T, flags []string, ours bool) {
	cmd, tmp := holdfast(t, deadline(t, runLimit), append([]string{"run", "-d", "--id", "c1"}, flags...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := addressIn(t, out)
	cgroups := "io.containerd.cgroups.v"
	type row struct {
		args   string
		status int
		stdout []string // in the output
		stderr string
	}
	rows := []row{
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
		{"ps c1", 0, []string{"PID", "sleep infinity"}, ""},
		{"start c1", exitFailed, nil, "running"},
		{"pause c1", 0, nil, ""},
		{"state c1", 0, []string{`"PAUSED"`}, ""},
		{"resume c1", 0, nil, ""},
		{"resume c1", exitFailed, nil, "running"},
		{"update c1", exitUsage, nil, "give --memory, --cpus or --pids"},
		{"update c1 --pids 77", 0, nil, ""},
		{"stats c1", 0, []string{`"limit": "77"`}, ""},
		{"update --pids -1 c1", 0, nil, ""},
		{"checkpoint c1", exitUsage, nil, "give --image DIRECTORY"},
		{"resize c1", 0, nil, ""}, // it has no terminal, which is no error
		{"close-io c1", 0, nil, ""},
		{"kill c1 --exec e9", exitFailed, nil, "e9"},
		{"delete c1", exitFailed, nil, "running"},
		{"kill c1 --signal 0", 0, nil, ""},
		{"kill --all c1", 0, nil, ""},
		{"wait c1", 0, []string{`"exitStatus": 137`}, ""},
		{"state c1", 0, []string{`"STOPPED"`}, ""},
		{"delete c1", 0, []string{`"exitStatus": 137`}, ""},
		{"state c1", exitFailed, nil, "not found"},
	}
	if ours {
		rows = slices.Insert(rows, len(rows)-2, row{"state c1", 0, []string{`"record": {`, `"Cause": "request"`}, ""})
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
	got := runHoldfast(t, "", "shutdown", "--address", address)
	// Ours still has all events that it could not send before.
	if got.status != 0 || ours && !strings.Contains(got.stderr, "/tasks/delete") {
		t.Errorf("holdfast shutdown: %+v", got)
	}
	leftNothing(t, tmp)
}

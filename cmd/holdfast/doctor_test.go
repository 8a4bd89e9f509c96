package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// healthy are the files of a host that lacks nothing.
var healthy = map[string]string{
	"/proc/sys/kernel/osrelease":              "6.1.0-9-amd64\n",
	"/proc/sys/kernel/pid_max":                "4194304\n",
	"/proc/sys/kernel/threads-max":            "100000\n",
	"/proc/loadavg":                           "0.1 0.2 0.3 2/345 6789\n",
	"/proc/sys/fs/pipe-max-size":              "1048576\n",
	"/proc/sys/fs/pipe-user-pages-soft":       "16384\n",
	"/proc/sys/fs/inotify/max_user_instances": "1024\n",
	"/proc/sys/fs/inotify/max_user_watches":   "65536\n",
	"/sys/fs/cgroup/cgroup.controllers":       "cpuset cpu io memory hugetlb pids\n",
	"/proc/77/cmdline":                        "/usr/bin/containerd\x00--config\x00/etc/own.toml\x00",
	"/proc/77/environ":                        "LANG=C\x00PATH=/opt/bin:/bin\x00",
	"/proc/77/limits":                         "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n",
	"/proc/self/limits":                       "Max open files            1024                 1048576              files     \n",
	"/etc/own.toml":                           "# mine\nversion = 2\n[x]\n  runtime_type = \"io.containerd.holdfast.v2\" # ours\n",
	"/run/containerd/s/x":                     "",
}

// programsOf are those of that host, and what they say.
var programsOf = map[string]string{
	"/bin/runc": "runc version 1.1.5+ds1\ncommit: x\n", "/bin/crun": "crun version 1.8.1\n", "/bin/criu": "Version: 3.17\n",
	"/bin/containerd": "containerd github.com/containerd/containerd 1.7.2 abc\n", "/opt/bin/" + shimName: "",
}

// patient makes a host with some changes, of files and of programs; "-" removes one.
func patient(t *testing.T, changes map[string]string) host {
	t.Helper()
	root, programs := t.TempDir(), map[string]string{}
	files := map[string]string{}
	for path, text := range healthy {
		files[path] = text
	}
	for path, text := range programsOf {
		programs[path] = text
	}
	for path, text := range changes {
		into := files
		if strings.HasPrefix(path, "/bin/") || strings.HasPrefix(path, "/opt/") {
			into = programs
		}
		if into[path] = text; text == "-" {
			delete(into, path)
		}
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(root+path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return host{
		root: root, path: "/bin",
		run: func(_ context.Context, program string, _ ...string) (string, error) {
			if programs[program] == "broken" {
				return "", errors.New("exit status 127")
			}
			return programs[program], nil
		},
		find: func(program, path string) string {
			for _, dir := range filepath.SplitList(path) {
				if _, there := programs[filepath.Join(dir, program)]; there {
					return filepath.Join(dir, program)
				}
			}
			return ""
		},
	}
}

func TestHealthyNodeGetsNoAdvice(t *testing.T) {
	var out bytes.Buffer
	failing, err := doctor(t.Context(), &out, patient(t, nil), true)
	if err != nil || failing {
		t.Errorf("failing %v, %v", failing, err)
	}
	var symptoms []symptom
	if err := json.Unmarshal(out.Bytes(), &symptoms); err != nil || len(symptoms) != 15 {
		t.Fatalf("%d lines, %v: %s", len(symptoms), err, &out)
	}
	for _, s := range symptoms {
		if s.Status != wellOK || s.Advice != "" || s.Fact == "" {
			t.Errorf("%+v", s)
		}
	}
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	noManager := map[string]string{"/proc/77/cmdline": "-", "/proc/77/environ": "-", "/proc/77/limits": "-", "/opt/bin/" + shimName: "-", "/bin/" + shimName: ""}
	with := func(m map[string]string, key, value string) map[string]string {
		all := map[string]string{key: value}
		for k, v := range m {
			all[k] = v
		}
		return all
	}
	rows := []struct {
		changes      map[string]string
		check        string
		status, text string
	}{
		{map[string]string{"/proc/sys/kernel/osrelease": "4.19.0"}, "kernel", wellWarn, "pidfd_open"},
		{map[string]string{"/proc/sys/kernel/osrelease": "-"}, "kernel", wellFail, "mount /proc"},
		{map[string]string{"/sys/fs/cgroup/cgroup.controllers": "-"}, "cgroup version", wellFail, "mount cgroup2"},
		{map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu io"}, "cgroup controllers", wellFail, "missing: cpuset memory pids"},
		{map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu memory pids io"}, "cgroup controllers", wellWarn, "missing: cpuset"},
		{map[string]string{"/sys/fs/cgroup/cgroup.controllers": "-", "/sys/fs/cgroup/memory/x": "", "/sys/fs/cgroup/pids/x": ""}, "cgroup version", wellOK, "1"},
		{map[string]string{"/bin/runc": "-"}, "runc", wellWarn, "name crun"},
		{map[string]string{"/bin/runc": "-", "/bin/crun": "-"}, "runc", wellFail, "install runc or crun"},
		{map[string]string{"/bin/runc": "broken"}, "runc", wellFail, "/bin/runc does not run"},
		{map[string]string{"/bin/runc": "runc version 1.0.3"}, "runc", wellWarn, "1.1 or later"},
		{map[string]string{"/bin/criu": "-"}, "criu", wellOK, "install it for checkpoint"},
		{map[string]string{"/proc/77/limits": "Max open files            64                 1024               files\n"}, "open files", wellWarn, "LimitNOFILE"},
		{map[string]string{"/proc/77/limits": "nothing\n"}, "open files", wellWarn, "not told"},
		{map[string]string{"/proc/loadavg": "0.1 0.2 0.3 2/95000 6789\n"}, "processes", wellFail, "95000 of 100000"},
		{map[string]string{"/proc/loadavg": "0.1 0.2 0.3 2/60000 6789\n"}, "processes", wellWarn, "60000 of 100000"},
		{map[string]string{"/proc/sys/kernel/pid_max": "4096"}, "processes", wellWarn, "of 4096"},
		{map[string]string{"/run/containerd/s/x": "-"}, "socket directory", wellOK, "is made when it is needed"},
		{map[string]string{"/run/containerd/s/x": "-", "/run/containerd/s": ""}, "socket directory", wellFail, "no directory"},
		{map[string]string{"/proc/sys/fs/pipe-max-size": "65536"}, "fs.pipe-max-size", wellWarn, "64.0KiB"},
		{map[string]string{"/proc/sys/fs/pipe-user-pages-soft": "100"}, "fs.pipe-user-pages-soft", wellWarn, "100 pages"},
		{map[string]string{"/proc/sys/fs/pipe-user-pages-soft": "0"}, "fs.pipe-user-pages-soft", wellOK, "no limit"},
		{map[string]string{"/proc/sys/fs/inotify/max_user_instances": "128"}, "inotify", wellWarn, "128 instances"},
		{map[string]string{"/bin/containerd": "containerd x 1.5.9 y"}, "containerd", wellFail, "1.6 or later"},
		{noManager, "containerd", wellWarn, "not running"},
		{with(noManager, "/bin/containerd", "-"), "containerd", wellWarn, "not installed"},
		{noManager, "open files", wellOK, "1048576, of holdfast"},
		{noManager, "shim", wellOK, "/bin/" + shimName},
		{noManager, "containerd's config", wellOK, "is not there"},
		{map[string]string{"/etc/own.toml": "[x]\n"}, "containerd's config", wellWarn, "write version = 2"},
		{map[string]string{"/etc/own.toml": "version = 3\n"}, "containerd's config", wellFail, "use version = 2: containerd 1.7.2"},
		{map[string]string{"/etc/own.toml": "version = 2\n"}, "containerd's config", wellOK, "no runtime of ours"},
		{map[string]string{"/opt/bin/" + shimName: "-"}, "shim", wellFail, "PATH of containerd, pid 77: /opt/bin:/bin"},
		{map[string]string{"/opt/bin/" + shimName: "-", "/etc/own.toml": "version = 2\nruntime_path = '/x/" + shimName + "'\n", "/x/" + shimName: ""}, "shim", wellOK, "for Kubernetes only"},
		{map[string]string{"/opt/bin/" + shimName: "-", "/etc/own.toml": "version = 2\nruntime_path = '/x/" + shimName + "'\n"}, "shim", wellFail, "is not there"},
	}
	for _, row := range rows {
		h := patient(t, row.changes)
		var found symptom
		for _, s := range h.examine(t.Context()) {
			if s.Check == row.check {
				found = s
			}
		}
		if found.Status != row.status || !strings.Contains(found.Fact+" "+found.Advice, row.text) {
			t.Errorf("%v: %+v, want %s, %q", row.changes, found, row.status, row.text)
		}
		if found.Status != wellOK && found.Advice == "" {
			t.Errorf("%s: what is to be done?", row.check)
		}
	}
}

func TestOpenSocketDirectoryIsToldOf(t *testing.T) {
	h := patient(t, nil)
	dir := h.root + shimSockets
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if s := h.socketDir(); s.Status != wellWarn || !strings.Contains(s.Fact, "mode 0777") {
		t.Errorf("%+v", s)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(dir, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if s := h.socketDir(); s.Status != wellFail || !strings.Contains(s.Fact, "uid 12345") {
		t.Errorf("%+v", s)
	}
}

func TestVersionsAreCompared(t *testing.T) {
	rows := []struct {
		version      string
		major, minor int
		want         bool
	}{
		{"1.1.5+ds1", 1, 1, false}, {"1.0.3", 1, 1, true}, {"v2.0.0", 1, 6, false}, {"0.9", 1, 0, true}, {"5.10.0-9", 5, 3, false}, {"what", 1, 0, false},
	}
	for _, row := range rows {
		if got := older(row.version, row.major, row.minor); got != row.want {
			t.Errorf("%s before %d.%d: %v", row.version, row.major, row.minor, got)
		}
	}
}

// Here only the form is known: a line for each check, and a status that goes with them.
func TestThisNodeIsExamined(t *testing.T) {
	var out bytes.Buffer
	failing, err := doctor(t.Context(), &out, thisHost(), false)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 16 || failing != strings.Contains(out.String(), "\nfail ") {
		t.Errorf("failing %v:\n%s", failing, &out)
	}
}

// TestDoctorsStatusTellsWhetherSomethingFails takes the runtime away.
func TestDoctorsStatusTellsWhetherSomethingFails(t *testing.T) {
	cmd, tmp := holdfast(t, deadline(t, runLimit), "doctor", "--json")
	cmd.Env = append(cmd.Env, "PATH="+tmp)
	out, _ := cmd.Output() // its status is looked at
	if got := cmd.ProcessState.ExitCode(); got != exitUnwell || !strings.Contains(string(out), "runc") {
		t.Errorf("status %d: %s", got, out)
	}
}

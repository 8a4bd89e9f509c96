package shim

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/internal/api"
	"holdfast/internal/wire"
)

// mustDelete runs delete, which has to succeed within the time that managers give it, and returns
// the answer and what it complained about.
func (m *manager) mustDelete(id string) (*api.DeleteResponse, string) {
	m.t.Helper()
	began := time.Now()
	r := m.delete(id)
	if took := time.Since(began); took > 5*time.Second {
		m.t.Errorf("delete took %v", took)
	}
	if r.code != 0 {
		m.t.Fatalf("delete failed with %d: %s", r.code, r.stderr)
	}
	answer := &api.DeleteResponse{}
	if err := wire.Unmarshal(r.stdout, answer); err != nil {
		m.t.Fatalf("answer %q: %v", r.stdout, err)
	}
	return answer, string(r.stderr)
}

// checkKilled tells if answer is not that of a container whose end nobody saw.
func checkKilled(t *testing.T, answer *api.DeleteResponse, pid uint32, since time.Time) {
	t.Helper()
	at := answer.GetExitedAt().AsTime()
	if answer.GetExitStatus() != 137 || answer.GetPid() != pid || at.Before(since) || at.After(time.Now()) {
		t.Errorf("answer is %v, want pid %d, status 137, now", answer, pid)
	}
}

func bindMount(t *testing.T, target string) {
	t.Helper()
	if err := os.MkdirAll(target, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // gone if the test succeeds
}

func isMounted(t *testing.T, dir string) bool {
	t.Helper()
	return strings.Contains(readText(t, "/proc/self/mountinfo"), " "+dir+" ")
}

// TestDeleteSurvivesAnyBundle takes away any subset of the files of a bundle. What is left of them
// must not be touched, and the answer must not depend on what is missing.
func TestDeleteSurvivesAnyBundle(t *testing.T) {
	files := []struct{ name, text string }{
		{"config.json", `{"annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-id":"c1"}}`},
		{"options.json", `{"root":"/run/test-runc"}`},
		{"runtime", ""},
		{"init.pid", strconv.Itoa(1 << 22)}, // above every pid
		{"address", "unix:///run/none"},
		{"rootfs", "mounted"},
		{"log.json", `{"level":"error"`},
	}
	m := newManager(t, "2.4")
	for subset := range 1 << len(files) {
		id := fmt.Sprint("c", subset)
		bundle := filepath.Join(m.state, id)
		if err := os.MkdirAll(bundle, 0o700); err != nil {
			t.Fatal(err)
		}
		var names []string
		pid := uint32(0)
		for i, file := range files {
			path := filepath.Join(bundle, file.name)
			switch {
			case subset&(1<<i) == 0:
				continue
			case file.name == "rootfs":
				bindMount(t, path)
			default:
				writeText(t, path, file.text)
			}
			if file.name == "init.pid" {
				pid = 1 << 22
			}
			names = append(names, file.name)
		}
		slices.Sort(names)
		since := time.Now()
		answer, complaint := m.mustDelete(id)
		checkKilled(t, answer, pid, since)
		if complaint != "" {
			t.Errorf("%v: complained %q", names, complaint)
		}
		if got := fileNames(t, bundle); !cmp.Equal(got, names) {
			t.Errorf("the bundle had %v, has %v", names, got)
		}
		if isMounted(t, filepath.Join(bundle, "rootfs")) {
			t.Errorf("%v: rootfs is still mounted", names)
		}
	}
}

func TestDeleteWithoutABundle(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("beside", nil)
	args := []string{"-namespace", "ns", "-id", "c1", "-bundle", filepath.Join(m.state, "c1"), "delete"}
	for range 2 {
		since := time.Now()
		r := m.run("beside", args, nil)
		var answer api.DeleteResponse
		if err := wire.Unmarshal(r.stdout, &answer); err != nil || r.code != 0 || len(r.stderr) > 0 {
			t.Fatalf("%v, exit status %d, stderr %q", err, r.code, r.stderr)
		}
		checkKilled(t, &answer, 0, since)
	}
	// Without -bundle it is beside the working directory.
	bindMount(t, filepath.Join(m.state, "c2", "rootfs"))
	if r := m.run("beside", []string{"-namespace", "ns", "-id", "c2", "delete"}, nil); r.code != 0 || isMounted(t, filepath.Join(m.state, "c2", "rootfs")) {
		t.Errorf("exit status %d, stderr %q", r.code, r.stderr)
	}
}

func TestDeleteReportsTheRecordedExit(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range []struct {
		name, record string
		pid          string // of init.pid
		want         *api.DeleteResponse
		complaint    string
	}{
		{"valid", `{"Timestamp":"2026-01-02T03:04:05.000000006Z","Pid":7,"Status":42}`, "9",
			&api.DeleteResponse{Pid: 7, ExitStatus: 42}, ""},
		{"status zero", `{"Timestamp":"2026-01-02T03:04:05.000000006Z","Pid":7,"Status":0}`, "9",
			&api.DeleteResponse{Pid: 7}, ""},
		{"other zone", `{"Timestamp":"2026-01-02T05:04:05.000000006+02:00","Pid":7,"Status":1}`, "",
			&api.DeleteResponse{Pid: 7, ExitStatus: 1}, ""},
		{"truncated", `{"Timestamp":"2026-01-0`, "9", nil, "cannot use"},
		{"empty", ``, "9", nil, "cannot use"},
		{"no pid", `{"Timestamp":"2026-01-02T03:04:05Z","Status":1}`, "9", nil, "holds no exit"},
		{"negative", `{"Timestamp":"2026-01-02T03:04:05Z","Pid":7,"Status":-1}`, "9", nil, "holds no exit"},
		{"no time", `{"Pid":7,"Status":1}`, "9", nil, "holds no exit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newManager(t, "2.4")
			bundle := m.bundle("c1", nil)
			writeText(t, filepath.Join(bundle, "exit.json"), c.record)
			writeText(t, filepath.Join(bundle, "init.pid"), c.pid)
			since := time.Now()
			answer, complaint := m.mustDelete("c1")
			if lines := strings.Count(complaint, "\n"); !strings.Contains(complaint, c.complaint) || lines != min(1, len(c.complaint)) {
				t.Errorf("complained %q, want one line about %q", complaint, c.complaint)
			}
			if c.want == nil {
				checkKilled(t, answer, 9, since)
			} else if answer.GetPid() != c.want.GetPid() || answer.GetExitStatus() != c.want.GetExitStatus() || !answer.GetExitedAt().AsTime().Equal(at) {
				t.Errorf("answer is %v, want %v at %v", answer, c.want, at)
			}
		})
	}
}

func TestGarbledPidFileIsPidZero(t *testing.T) {
	bundle := t.TempDir()
	for text, want := range map[string]int{
		"": 0, "x": 0, "-1": 0, "0": 0, "12": 12, "12\n": 12, "4294967295": 0, "99999999999999999999": 0, "1 2": 0,
	} {
		writeText(t, filepath.Join(bundle, "init.pid"), text)
		if got := (container{bundle: bundle}).initPid(); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

// noted makes a runtime that writes down how it is called, then runs script. Its root is a
// directory where each container of ids has a state.
func noted(t *testing.T, script string, ids ...string) (o *api.Options, calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	list := filepath.Join(dir, "calls")
	for _, id := range ids {
		if err := os.MkdirAll(filepath.Join(dir, "ns", id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	o = &api.Options{Root: dir, BinaryName: fakeRuntime(t, `
for last; do :; done
echo "$last" >>`+list+"\n"+script)}
	return o, func() []string {
		data, err := os.ReadFile(list)
		if err != nil {
			return nil
		}
		names := strings.Fields(string(data))
		slices.Sort(names)
		return names
	}
}

func (m *manager) save(id string, o *api.Options) {
	m.t.Helper()
	if err := SaveOptions(filepath.Join(m.state, id), o); err != nil {
		m.t.Fatal(err)
	}
}

func TestDeleteAsksTheRuntimeOfTheBundle(t *testing.T) {
	m := newManager(t, "2.4")
	bundle := m.bundle("c1", nil)
	list := filepath.Join(t.TempDir(), "calls")
	o := &api.Options{Root: "/run/roots", BinaryName: fakeRuntime(t, "pwd >"+list+"; echo \"$@\" >>"+list), SystemdCgroup: true}
	m.save("c1", o)
	if _, complaint := m.mustDelete("c1"); complaint != "" {
		t.Errorf("complained %q", complaint)
	}
	got := strings.Fields(readText(t, list))
	got[slices.Index(got, "--log")+1] = "LOG"
	want := []string{bundle, "--root", "/run/roots/ns", "--log", "LOG", "--log-format", "json", "--systemd-cgroup", "delete", "--force", "c1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteOfWhatRuncDoesNotKnowRunsNothing(t *testing.T) {
	m := newManager(t, "2.4")
	m.bundle("c1", nil)
	list := filepath.Join(t.TempDir(), "calls")
	runtime := fakeRuntime(t, "echo called >>"+list)
	runc := filepath.Join(filepath.Dir(runtime), "runc")
	if err := os.Rename(runtime, runc); err != nil {
		t.Fatal(err)
	}
	m.save("c1", &api.Options{BinaryName: runc, Root: "/run/roots"})
	if _, complaint := m.mustDelete("c1"); complaint != "" || exists(list) {
		t.Errorf("complained %q, called: %v", complaint, exists(list))
	}
	if err := os.MkdirAll("/run/roots/ns/c1", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, complaint := m.mustDelete("c1"); complaint != "" || !exists(list) {
		t.Errorf("with a state: complained %q, called: %v", complaint, exists(list))
	}
}

// TestDeleteNamesWhatStays has the runtimes that do not do their work. The answer comes in time.
func TestDeleteNamesWhatStays(t *testing.T) {
	for _, c := range []struct {
		name, script string
		state        bool // the runtime has a state of the container
		want         string
	}{
		{"refuses", "echo 'device or resource busy' >&2; exit 1", true, "device or resource busy"},
		{"refuses what is not there", "echo 'no such container' >&2; exit 1", false, ""},
		{"hangs", "exec sleep 60", true, "cannot delete container c1"},
		{"is missing", "", true, "cannot delete container c1"},
		{"is missing, as ever", "", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, "2.4")
			bundle := m.bundle("c1", nil)
			o, _ := noted(t, c.script)
			if c.state {
				o, _ = noted(t, c.script, "c1")
			}
			if c.script == "" {
				o.BinaryName = "/none/such"
			}
			m.save("c1", o)
			bindMount(t, filepath.Join(bundle, "rootfs"))
			since := time.Now()
			answer, complaint := m.mustDelete("c1")
			checkKilled(t, answer, 0, since)
			if strings.Count(complaint, "\n") != min(1, len(c.want)) || !strings.Contains(complaint, c.want) {
				t.Errorf("complained %q, want one line with %q", complaint, c.want)
			}
			if isMounted(t, filepath.Join(bundle, "rootfs")) {
				t.Error("rootfs is still mounted")
			}
		})
	}
}

func TestTruncatedOptionsAreMentioned(t *testing.T) {
	m := newManager(t, "2.4")
	bundle := m.bundle("c1", nil)
	writeText(t, filepath.Join(bundle, "options.json"), `{"root":"/ru`)
	_, complaint := m.mustDelete("c1")
	if strings.Count(complaint, "\n") != 1 || !strings.Contains(complaint, filepath.Join(bundle, "options.json")) {
		t.Errorf("complained %q", complaint)
	}
}

// TestBusyRootfsIsNamed has a process with its working directory in the root filesystem.
func TestBusyRootfsIsNamed(t *testing.T) {
	m := newManager(t, "2.4")
	root := filepath.Join(m.bundle("c1", nil), "rootfs")
	bindMount(t, root)
	user := exec.Command("sleep", "60")
	user.Dir = root
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	_, complaint := m.mustDelete("c1")
	if strings.Count(complaint, "\n") != 1 || !strings.Contains(complaint, root) {
		t.Errorf("complained %q", complaint)
	}
	if err := user.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = user.Wait() // killed
	if _, complaint := m.mustDelete("c1"); complaint != "" || isMounted(t, root) {
		t.Errorf("then complained %q, still mounted: %v", complaint, isMounted(t, root))
	}
}

func TestAlarmNamesTheStep(t *testing.T) {
	var stderr bytes.Buffer
	d := &cleanup{call: &call{binary: "/x/shim", stderr: &stderr}, container: container{id: "c1"}}
	d.step("unmounting the root filesystem")
	d.alarm()
	if want := "shim: still unmounting the root filesystem of c1 after 4.7s\n"; stderr.String() != want {
		t.Errorf("stderr is %q, want %q", stderr.String(), want)
	}
}

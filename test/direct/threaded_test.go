package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"holdfast/internal/client"
)

// threadsWord makes this binary a program with some threads, as every one in Go is.
const threadsWord = "threads"

func asThreads() {
	fmt.Println("ready")
	time.Sleep(time.Hour) // until it is killed
}

// TestPauseAndKillReachThreadedGroups moves one thread of a container into a threaded group, in which
// neither cgroup.procs can be read nor cgroup.kill be written.
func TestPauseAndKillReachThreadedGroups(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("threaded groups need cgroup v2 alone")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := client.BundleConfig{Args: []string{"/program", threadsWord}, Mounts: []specs.Mount{
		{Destination: "/program", Type: "bind", Source: self, Options: []string{"bind", "ro"}},
	}}
	l := newLab(t, labConfig{bundle: cfg})
	io := l.io("c1", client.IOConfig{})
	pid := l.run("c1", io)
	if err := io.Out.WaitFor(within(t), "ready"); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v, %v", tasks, err)
	}
	threaded := filepath.Join("/sys/fs/cgroup", l.cgroup("c1"), "threads")
	if err := os.Mkdir(threaded, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct{ file, value string }{{"cgroup.type", "threaded"}, {"cgroup.threads", tasks[1].Name()}} {
		if err := os.WriteFile(filepath.Join(threaded, w.file), []byte(w.value), 0); err != nil {
			t.Fatal(err)
		}
	}
	got := l.pids("c1")
	if _, ok := got[pid]; !ok || len(got) != 1 {
		t.Errorf("pids %v, want %d", got, pid)
	}
	l.pause("c1")
	l.memory("c1")
	l.killAll("c1", 9)
	if got := l.wait("c1", ""); got != 137 {
		t.Errorf("exit status %d", got)
	}
	l.mustDelete("c1", "")
}

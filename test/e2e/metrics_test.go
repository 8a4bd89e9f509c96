package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/cgroups/v3/cgroup2"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// measured gives containerd an address where Prometheus can ask it.
func measured(t *testing.T) option {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	return func(c *containerd) { c.metrics = free.Addr().String() }
}

// scrape returns what containerd tells Prometheus of a container, by name. Of several figures of one
// name, such as those of processors, it is any.
func (c *containerd) scrape(t *testing.T, id string) map[string]string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.metrics+"/v1/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", answer.Status, err, body)
	}
	figures := map[string]string{}
	for line := range strings.Lines(string(body)) {
		name, rest, _ := strings.Cut(line, "{")
		labels, value, ok := strings.Cut(rest, "} ")
		if ok && strings.Contains(labels, `container_id="`+id+`"`) {
			figures[name] = strings.TrimSpace(value)
		}
	}
	return figures
}

// names returns the keys of a map, but for those of figures that a container has only once it has
// read or written something.
func names(figures map[string]string) []string {
	var all []string
	for name := range figures {
		if !strings.HasPrefix(name, "container_blkio_") && !strings.HasPrefix(name, "container_io_") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// becomes waits until a process runs a program of that name.
func becomes(t *testing.T, pid int, name string) {
	t.Helper()
	eventually(t, func() error {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) != name+"\n" {
			return fmt.Errorf("it is still %s: %v", comm, err)
		}
		return nil
	})
}

// TestPrometheus asks containerd for the figures of a container of ours and of one like it of
// containerd's own shim.
func TestPrometheus(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version, measured(t))
		figures := map[string]map[string]string{}
		for name, flag := range map[string]string{"ours": c.runtimes()[0].flag, "theirs": c.tool("containerd-shim-runc-v2")} {
			id, pid := c.detached(t, []string{"--runtime", flag, "--memory-limit", "67108864"}, "sleep", "1000")
			defer c.remove(t, id)
			becomes(t, pid, "sleep") // until then its threads are the runtime's
			if name == "theirs" {
				c.theirs = append(c.theirs, id)
			}
			figures[name] = c.scrape(t, id)
		}
		if diff := cmp.Diff(names(figures["theirs"]), names(figures["ours"])); diff != "" {
			t.Errorf("figures that we have (+) and that containerd's own shim has (-):\n%s", diff)
		}
		for name, want := range map[string]string{"memory_usage_limit_bytes": "6.7108864e+07", "pids_current": "1"} {
			if got := figures["ours"]["container_"+name]; got != want {
				t.Errorf("%s is %q, want %s", name, got, want)
			}
		}
		usage := figures["ours"]["container_memory_usage_usage_bytes"] + figures["ours"]["container_memory_usage_bytes"]
		if usage == "" || usage == "0" {
			t.Errorf("its memory is %q", usage)
		}
	})
}

// TestFigures compares our statistics of a container, which stands still meanwhile, with what
// containerd's own shim would tell of it: it asks this library.
func TestFigures(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		id, pid := c.detached(t, []string{"--runtime", c.runtimes()[0].flag, "--memory-limit", "33554432"},
			"sh", "-c", "dd if=/dev/zero of=/file bs=1M count=4 && sync && rm /file; exec sleep 1000")
		defer c.remove(t, id)
		becomes(t, pid, "sleep")
		c.ok(t, "task", "pause", id)
		defer c.ok(t, "task", "resume", id)
		// The kernel adds up some of the figures every two seconds only.
		eventually(t, func() error {
			want, got := libraryStats(t, pid), c.figures(t, id)
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				return fmt.Errorf("figures that we have (+) and that the library has (-):\n%s", diff)
			}
			return nil
		})
	})
}

// figures asks containerd for a container's statistics.
func (c *containerd) figures(t *testing.T, id string) proto.Message {
	t.Helper()
	r, err := tasks.NewTasksClient(c.conn).Metrics(inNamespace(t.Context(), c.namespace),
		&tasks.MetricsRequest{Filters: []string{"id==" + id}})
	if err != nil || len(r.GetMetrics()) != 1 {
		t.Fatalf("metrics of %s: %v, %v", id, r, err)
	}
	data := r.GetMetrics()[0].GetData()
	var m proto.Message
	switch data.GetTypeUrl() {
	case "io.containerd.cgroups.v1.Metrics":
		m = &stats1.Metrics{}
	case "io.containerd.cgroups.v2.Metrics":
		m = &stats2.Metrics{}
	default:
		t.Fatalf("metrics are a %q", data.GetTypeUrl())
	}
	if err := proto.Unmarshal(data.GetValue(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func libraryStats(t *testing.T, pid int) proto.Message {
	t.Helper()
	if cgroups.Mode() == cgroups.Unified {
		path, err := cgroup2.PidGroupPath(pid)
		if err != nil {
			t.Fatal(err)
		}
		group, err := cgroup2.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := group.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	group, err := cgroup1.Load(cgroup1.PidPath(pid))
	if err != nil {
		t.Fatal(err)
	}
	m, err := group.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

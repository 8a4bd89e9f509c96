package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cgroupFile returns what a file in a process's cgroup says. The file has one name on cgroup v1,
// where it belongs to a controller's hierarchy, and another on v2.
func cgroupFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	file := ""
	for line := range strings.Lines(string(groups)) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		switch {
		case slices.Contains(strings.Split(field[1], ","), controller):
			file = filepath.Join("/sys/fs/cgroup", controller, field[2], v1)
		case field[1] == "" && file == "":
			file = filepath.Join("/sys/fs/cgroup", field[2], v2)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

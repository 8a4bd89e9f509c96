package direct

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	tasktypes "github.com/containerd/containerd/api/types/task"

	"holdfast/internal/client"
)

// ticks returns how many hundredths of a second of CPU a process has used (proc_pid_stat(5)).
func (l *lab) ticks(pid int) (sum int) {
	l.t.Helper()
	stat := l.read(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			l.t.Fatalf("%s: %v", stat, err)
		}
		sum += n
	}
	return sum
}

// restart brings back a manager that is gone, whole or in part.
func restart(l *lab) {
	l.t.Helper()
	if err := l.Events.Back(); err != nil {
		l.t.Fatal(err)
	}
	l.comeBack()
}

// A shim that has nothing to do does nothing, whoever has gone.
func TestIdleShimUsesNoCPU(t *testing.T) {
	for _, row := range []struct {
		name        string
		leave, back func(l *lab)
	}{
		{"everybody is there", func(*lab) {}, func(*lab) {}},
		{"only the manager's events are gone", func(l *lab) { l.Events.Away(false) }, restart},
		{"the manager is gone", func(l *lab) { l.Events.Away(false); l.hangUp() }, restart},
		{"the manager is gone, and an event waits", func(l *lab) {
			l.Events.Away(false)
			l.kill("c1", "", 9)
			l.wait("c1", "")
			l.hangUp()
		}, restart},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper()})
			l.run("c1", nil)
			l.event(func(e client.Event) bool { return e.Topic == "/tasks/start" })
			row.leave(l)
			time.Sleep(300 * time.Millisecond) // to come to rest
			before := l.ticks(l.Pid())
			time.Sleep(time.Second)
			if used := l.ticks(l.Pid()) - before; used > 5 {
				t.Errorf("it has used %d ms of CPU in a second", 10*used)
			}
			row.back(l)
			if l.status("c1", "") == tasktypes.Status_RUNNING {
				l.kill("c1", "", 9)
				l.wait("c1", "")
			}
			l.mustDelete("c1", "")
		})
	}
}

package order

import (
	"github.com/containerd/containerd/api/events"

	"holdfast/internal/client"
)

func (w *walk) create(t *task, m *events.TaskCreate) {
	if t.state != absent && t.state != unknown && t.state != deleted {
		w.report(CreatedFirst, "created again; the task is %s", t.state)
	}
	sent := t.sent
	*t = *newTask()
	t.sent = sent
	t.state = created
	w.pid(&t.process, m.GetPid(), m.GetCheckpoint() != "")
}

func (w *walk) start(t *task, m *events.TaskStart) {
	if t.state != created && t.state != unknown {
		w.report(StartedOnce, "the task is %s", t.state)
		return
	}
	t.state, t.paused, t.pauseKnown = running, false, true
	w.pid(&t.process, m.GetPid(), false)
}

func (w *walk) added(t *task, exec string) {
	p := t.exec(exec)
	switch {
	case t.state == exited:
		w.report(AddedOnce, "the task has exited")
	case p.state == running, p.state == created && !w.execsDeleted:
		// The deletion of an exec process has no event (contract 3.6), so an id may come again.
		w.report(AddedOnce, "the exec process is %s", p.state)
	}
	*p = process{state: created}
}

func (w *walk) execStarted(t *task, exec string, pid uint32) {
	p := t.exec(exec)
	switch {
	case t.state == exited:
		w.report(ExecStarted, "the task has exited")
	case p.state != created && p.state != unknown:
		w.report(ExecStarted, "the exec process is %s", p.state)
	}
	p.state = running
	w.pid(p, pid, false)
}

// exit comes before all else is checked, since the exit of something that is not there has a rule
// of its own: it is what a shim says of a process whose Create or Start has failed.
func (w *walk) exit(t *task, ev client.Event, m *events.TaskExit) {
	p := t.of(ev)
	isInit := p == &t.process
	switch {
	case p.exits:
		w.report(ExitedOnce, "the process is %s", p.state)
		return
	case p.state == deleted:
		w.report(DeletedLast, "the process has been deleted before")
		return
	case w.compacted && !isInit && (p.state == absent || p.state == created):
	case p.state == absent || p.state == created && !isInit:
		w.report(ExitedNotFail, "the process is %s", p.state)
		return
	}
	if isInit {
		w.execsExited(t)
	} else if t.state == exited {
		w.report(ExecsExitFirst, "the init process has exited before")
	}
	p.state, p.exits, p.status, p.at = exited, true, m.GetExitStatus(), client.Time(m.GetExitedAt())
	if p.at.IsZero() || p.at.Unix() == 0 {
		w.report(ExitTimed, "exited_at is %v", m.GetExitedAt())
	}
	w.pid(p, m.GetPid(), false)
}

// execsExited reports each exec process that outlives its init process.
func (w *walk) execsExited(t *task) {
	for _, id := range sortedKeys(t.execs) {
		if t.execs[id].state == running {
			w.report(ExecsExitFirst, "exec process %s still runs", id)
		}
	}
}

func (w *walk) delete(t *task, ev client.Event, m *events.TaskDelete) {
	p := t.of(ev)
	switch p.state {
	case absent, deleted:
		w.report(DeletedLast, "the process is %s", p.state)
		return
	case running:
		w.report(DeletedLast, "the process still runs")
	}
	if p.exits {
		if at := client.Time(m.GetExitedAt()); m.GetExitStatus() != p.status || !at.Equal(p.at) {
			w.report(DeleteAgrees, "the exit had status %d at %s", p.status, p.at.Format("15:04:05.000000"))
		}
	}
	w.pid(p, m.GetPid(), p.state == created || p.state == unknown)
	p.state = deleted
}

func (w *walk) pause(t *task, to bool) {
	switch {
	case t.state != running && t.state != unknown:
		w.report(PausedRunning, "the task is %s", t.state)
	case t.pauseKnown && t.paused == to:
		w.report(PausedRunning, "it is so already")
	}
	t.paused, t.pauseKnown = to, true
}

package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"

	"holdfast/internal/client"
	"holdfast/test/leak"
	"holdfast/test/order"
)

func TestSoak(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	n, d := seed(t), duration(t)
	t.Logf("%v; %s=%d makes the same choices", d, seedVariable, n)
	w := newWorld(t)
	var callers []*caller
	for i := range clients {
		callers = append(callers, w.newCaller(i, n))
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var all, broken sync.WaitGroup
	for _, c := range callers {
		all.Go(func() { c.run(ctx) })
	}
	for i, vandal := range vandals {
		broken.Go(func() { vandal(ctx, w, callers, source(n, clients+i)) })
	}
	all.Wait()
	broken.Wait()
	for _, c := range callers {
		for _, l := range c.lines {
			l.cut()
		}
	}
	began := time.Now()
	for _, p := range w.pods {
		p.sweep()
	}
	t.Logf("in the end all containers were deleted within %v", time.Since(began).Round(time.Millisecond))
	for _, p := range w.pods {
		p.check()
	}
	w.noStrays()
	t.Logf("%v", w.tally)
}

// at returns the container in a slot, or nil.
func (p *pod) at(slot int) *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slots[slot]
}

// take puts a container into a slot, if that is free.
func (p *pod) take(slot int, l *life) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slots[slot] != nil {
		return false
	}
	p.slots[slot] = l
	p.lives = append(p.lives, l)
	return true
}

// free takes a container out of its slot.
func (p *pod) free(l *life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.slots {
		if p.slots[i] == l {
			p.slots[i] = nil
		}
	}
}

// wait waits for an exit until ctx ends.
func (p *pod) wait(ctx context.Context, l *life, proc *process, on *line) error {
	var a *task.WaitResponse
	err := on.callWithin(ctx, wait, l.id, func(ctx context.Context, s *client.Shim) (err error) {
		a, err = s.Wait(ctx, &task.WaitRequest{ID: l.id, ExecID: proc.exec})
		return err
	})
	if err == nil {
		p.world.told(l, proc, a.GetExitStatus(), client.Time(a.GetExitedAt()))
	}
	return err
}

// await waits for an exit as long as that takes, whatever becomes of the connection.
func (p *pod) await(l *life, proc *process) {
	for {
		if err := p.wait(context.Background(), l, proc, p.patient); !lost(err) {
			return
		}
	}
}

// sweep ends and deletes what is left in the shim. Nobody disturbs that.
func (p *pod) sweep() {
	on := &line{pod: p}
	defer on.cut()
	c := &caller{world: p.world}
	for _, l := range p.all() {
		for _, s := range l.readers() {
			s.end()
		}
		if _, deleted := l.known(&process{}); deleted {
			continue
		}
		l.mu.Lock()
		init := l.init()
		l.mu.Unlock()
		if err := c.finish(l, init, on); err != nil {
			p.world.t.Errorf("%s cannot be deleted: %v", l.id, err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.waiters.Wait()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		p.world.t.Errorf("a wait for a process of %s is not answered, although all are gone", p.id)
		p.patient.cut()
	}
}

// finish deletes a container, whatever its state.
func (c *caller) finish(l *life, init *process, on *line) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		on.call(resume, l.id, func(ctx context.Context, s *client.Shim) error {
			return plain(ctx, s, l, init, choice{op: resume}) // refused unless it is paused
		})
		on.call(kill, l.id, func(ctx context.Context, s *client.Shim) error {
			return plain(ctx, s, l, init, choice{op: kill}) // SIGKILL; refused if it has ended
		})
		err := c.remove(l, init, on)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errdefs.ErrNotFound): // the answer to an earlier deletion was lost
			l.forget(init)
			l.pod.free(l)
			l.pod.leave(l, on)
			return nil
		case time.Now().After(end):
			return fmt.Errorf("after %v: %w", limit, err)
		}
	}
}

// all returns every container that the pod has had.
func (p *pod) all() []*life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*life(nil), p.lives...)
}

// check checks the events of the shim against what was answered, and that it holds what it held
// when it had one container.
func (p *pod) check() {
	t := p.world.t
	p.holdsNoMore()
	ctx, cancel := within()
	defer cancel()
	// When the end of one more container is known, so is all before.
	if err := p.last(ctx); err != nil {
		t.Errorf("end the first container of %s: %v", p.id, err)
	}
	if _, err := p.Events.Wait(ctx, client.Deletes(p.id, "")); err != nil {
		t.Errorf("the last event of %s does not come: %v", p.id, err)
	}
	events := withoutRepeats(p.Events.All())
	order.Verify(t, events)
	exits := map[string][]client.Event{}
	for _, e := range events {
		if e.Topic == "/tasks/exit" {
			name := e.Task() + " " + e.Exec()
			exits[name] = append(exits[name], e)
		}
	}
	for _, l := range p.all() {
		for _, proc := range l.all() {
			if complaint := compare(proc, exits[l.id+" "+proc.exec]); complaint != "" {
				t.Errorf("%s %s: %s", l.id, proc.exec, complaint)
			}
		}
	}
	t.Logf("%s: %d containers, %d events", p.id, len(p.all()), len(events))
}

// compare returns what is wrong with the exit events of a process, or "".
func compare(p *process, events []client.Event) string {
	switch {
	case len(events) > 1:
		return fmt.Sprintf("%d exit events", len(events))
	case len(events) == 0 && (p.started || p.exit != nil):
		return fmt.Sprintf("no exit event; started %v, exit %v", p.started, p.exit)
	case len(events) == 0 || p.exit == nil:
		return ""
	}
	status, at, _ := events[0].Exit()
	if told := (exit{status, at}); told.status != p.exit.status || !told.at.Equal(p.exit.at) {
		return fmt.Sprintf("its event says %v, an answer said %v", told, p.exit)
	}
	return ""
}

// withoutRepeats leaves out events that are the one before them again: their answer was lost.
func withoutRepeats(all []client.Event) []client.Event {
	var events []client.Event
	for i, e := range all {
		if i > 0 && e.Sent.Equal(all[i-1].Sent) && e.Topic == all[i-1].Topic {
			continue
		}
		events = append(events, e)
	}
	return events
}

// holdsNoMore checks that the shim has given back what containers and clients have cost it.
func (p *pod) holdsNoMore() {
	p.patient.cut()
	var now leak.Census
	var err error
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		now, err = leak.Process(p.Pid())
		if err == nil && now.Descriptors() <= p.before.Descriptors() {
			break
		}
		if time.Now().After(end) {
			p.world.t.Errorf("the shim %s holds %v, before %v; error %v; now\n%s", p.id, now, p.before, err, strings.Join(now.Links, "\n"))
			return
		}
	}
	p.world.t.Logf("%s holds %v; before %v", p.id, now, p.before)
}

// noStrays checks that nothing runs which was started for a container or by a shim.
func (w *world) noStrays() {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		strays := w.strays()
		if len(strays) == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Errorf("left running:\n%s", strings.Join(strays, "\n"))
			return
		}
	}
}

func (w *world) strays() []string {
	var strays []string
	for _, v := range find(func([]string) bool { return true }) {
		groups, err := os.ReadFile("/proc/" + strconv.Itoa(v.pid) + "/cgroup")
		if err != nil || v.args[0] == shimBinary && !strings.Contains(string(groups), w.cgroup("")) {
			continue // it has ended, or is a shim, whose end is checked later
		}
		if strings.Contains(string(groups), w.cgroup("")) || strings.Contains(string(v.line), w.dir) {
			strays = append(strays, fmt.Sprintf("%d %q", v.pid, v.args))
		}
	}
	return strays
}

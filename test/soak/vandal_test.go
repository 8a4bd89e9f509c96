package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

// vandals are what goes wrong beside the clients, each again and again until ctx ends. They put
// right what they have broken before they return, but for what they have killed.
var vandals = []func(ctx context.Context, w *world, callers []*caller, r *rand.Rand){
	absentManager, cutLines, fickleReaders, killLoggers, killRuntimes,
}

// pauseFor waits for up to that long, and says whether to go on.
func pauseFor(ctx context.Context, r *rand.Rand, most time.Duration) bool {
	select {
	case <-time.After(time.Duration(r.Int64N(int64(most)))):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// absentManager makes the manager of a shim not take events for a while.
func absentManager(ctx context.Context, w *world, _ []*caller, r *rand.Rand) {
	for pauseFor(ctx, r, 2*time.Second) {
		events := w.pods[r.IntN(len(w.pods))].Events
		way := r.IntN(5)
		switch way {
		case 0, 1:
			events.Away(way == 0)
			w.act("the manager was away")
		case 2:
			events.Fault(client.Refused, 1+r.IntN(5))
			w.act("events were refused")
		case 3:
			events.Fault(client.Dropped, 1+r.IntN(5))
			w.act("the manager hung up on events")
		case 4:
			events.Fault(client.Stalled, 1)
			w.act("an event was not answered")
		}
		pauseFor(ctx, r, 2*time.Second)
		events.Fault(client.Accepted, 0)
		if way < 2 {
			if err := events.Back(); err != nil {
				w.t.Errorf("the manager cannot come back: %v", err)
			}
		}
	}
}

// cutLines ends connections of clients.
func cutLines(ctx context.Context, w *world, callers []*caller, r *rand.Rand) {
	for pauseFor(ctx, r, time.Second) {
		victim := callers[r.IntN(len(callers))].lines[r.IntN(pods)]
		if r.IntN(4) == 0 {
			victim = victim.pod.patient
		}
		victim.cut()
		w.act("a connection was cut")
	}
}

// fickleReaders closes the streams of a container at the client's side, and opens them again.
func fickleReaders(ctx context.Context, w *world, _ []*caller, r *rand.Rand) {
	for pauseFor(ctx, r, 500*time.Millisecond) {
		l := w.pods[r.IntN(pods)].at(r.IntN(slots))
		n := r.IntN(1 << 16)
		if l == nil {
			continue
		}
		readers := l.readers()
		if len(readers) == 0 {
			continue
		}
		s := readers[n%len(readers)]
		s.hangUp()
		w.act("a reader was away")
		pauseFor(ctx, r, time.Second)
		if err := s.comeBack(); err != nil {
			w.t.Errorf("a reader cannot come back: %v", err)
		}
	}
}

// killLoggers kills the programs that take the output of containers.
func killLoggers(ctx context.Context, w *world, _ []*caller, r *rand.Rand) {
	for pauseFor(ctx, r, 3*time.Second) {
		found := find(func(args []string) bool {
			return slices.Contains(args, w.logger()) || args[0] == w.reader()
		})
		n := r.IntN(1 << 16)
		if len(found) > 0 && found[n%len(found)].kill(w) {
			w.act("a logger was killed")
		}
	}
}

// killRuntimes kills a runtime that works for a container of ours. One at work for the first
// container of a shim is left alone.
func killRuntimes(ctx context.Context, w *world, _ []*caller, r *rand.Rand) {
	for pauseFor(ctx, r, 2*time.Second) {
		var found []victim
		for len(found) == 0 && pauseFor(ctx, r, 20*time.Millisecond) {
			found = find(func(args []string) bool {
				return filepath.Base(args[0]) == "runc" && strings.Contains(strings.Join(args, " "), w.name) && w.life(args) != ""
			})
		}
		if len(found) == 0 {
			return
		}
		v := found[r.IntN(len(found))]
		w.strike(w.life(v.args), verb(v.args))
		if v.kill(w) {
			w.act("runc " + verb(v.args) + " was killed")
		}
	}
}

// life returns the id of the container, but a first one, that a command line is about.
func (w *world) life(args []string) string {
	for _, arg := range args {
		for _, p := range w.pods {
			if strings.HasPrefix(arg, p.id+"-") {
				return arg
			}
		}
	}
	return ""
}

// verb returns what a runtime was told to do.
func verb(args []string) string {
	for _, arg := range args {
		switch arg {
		case "create", "start", "exec", "kill", "pause", "resume", "delete", "ps", "state", "update", "events":
			return arg
		}
	}
	return "of another kind"
}

// A victim is a process that was found by its command line.
type victim struct {
	pid  int
	line []byte
	args []string
}

// find returns the processes whose command line matches, in the order of their pids.
func find(match func(args []string) bool) []victim {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []victim
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line := commandLine(pid)
		if args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"); len(line) > 0 && match(args) {
			found = append(found, victim{pid, line, args})
		}
	}
	slices.SortFunc(found, func(a, b victim) int { return a.pid - b.pid })
	return found
}

func commandLine(pid int) []byte {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil // it has ended
	}
	return line
}

// kill kills the process if it is still the one that was found.
func (v victim) kill(w *world) bool {
	fd, err := unix.PidfdOpen(v.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if !bytes.Equal(commandLine(v.pid), v.line) {
		return false
	}
	err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		w.t.Errorf("kill pid %d: %v", v.pid, err)
	}
	return err == nil
}

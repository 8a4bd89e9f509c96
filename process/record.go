package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"holdfast/internal/bundle"
	"holdfast/internal/proc"
	"holdfast/internal/reaper"
)

// Files in the bundle that tell how processes have ended.
const (
	ExitFile = "exit.json" // an ExitRecord, of the init process
	oomFile  = "oom"       // its being there says it: CRI-O has no other way to learn of it (managers.md)
)

// ExitRecord is what ExitFile holds. The first three are what containerd's own shim 2.4 writes and
// reads (contract 1.8): whoever cleans up after us can tell the truth. The others are for people.
type ExitRecord struct {
	Timestamp  time.Time
	Pid        int32
	Status     int32
	Signal     int    `json:",omitempty"` // that has ended the process
	CoreDumped bool   `json:",omitempty"`
	Cause      string `json:",omitempty"` // of the signal
	// OOMLimit tells, if the kernel has killed any process of the container for want of memory, whose
	// limit was hit then: oom.Own, oom.Host, or the directory of a control group above. Of several
	// kills it is the last that counts.
	OOMLimit string `json:",omitempty"`
}

// oomKill is an OOM kill of any process of the container.
type oomKill struct {
	limit    string      // whose: see oom.Watch
	survived atomic.Bool // by the init process: it was that of an exec or a child
}

// oomSignal is within what time a process has been sent its SIGKILL after its OOM kill was counted. The
// kernel does both at once, but may be interrupted.
const oomSignal = 200 * time.Millisecond

// tellVictim finds out, in a while, whether the init process survives the kill. If it is dead by then,
// it was the victim. The timer ends by itself.
func (c *Container) tellVictim(kill *oomKill) {
	child := c.init.alive()
	if child == nil {
		return
	}
	time.AfterFunc(oomSignal, func() {
		init, ok := proc.Read(child.Pid())
		doomed := !ok || init.Doomed()
		select {
		case <-child.Done(): // the pid may be another's
		default:
			kill.survived.Store(!doomed)
		}
	})
}

// The causes of a signal.
const (
	causeRequest = "request" // a client of ours has had it sent
	causeOOM     = "oom"     // the kernel, for want of memory
	causeInit    = "init"    // of an exec: the end of the container
	causeOutside = "outside" // somebody else, the container itself perhaps
)

// cause tells where the signal that has ended the init process came from; "" if none has.
func (c *Container) cause(exit reaper.Exit) string {
	switch {
	case exit.Signal == 0:
		return ""
	case c.init.wasAsked(exit.Signal):
		return causeRequest
	}
	kill := c.oomed.Load()
	if exit.Signal == killSignal && kill != nil && !kill.survived.Load() {
		return causeOOM
	}
	return causeOutside
}

// causeOfExec tells where the signal that has ended an exec came from; "" if none has.
func (c *Container) causeOfExec(e *execProcess, exit reaper.Exit) string {
	switch {
	case exit.Signal == 0:
		return ""
	case e.wasAsked(exit.Signal):
		return causeRequest
	case exit.Signal == killSignal && c.gate.closed():
		return causeInit
	case exit.Signal == killSignal && c.watch.Kills() > e.kills:
		return causeOOM
	}
	return causeOutside
}

// execExitFile is like ExitFile, of an exec: from its exit until it is deleted.
func execExitFile(id string) string { return "exit." + id + ".json" }

// oomLimit is the OOMLimit of the record.
func (c *Container) oomLimit() string {
	if kill := c.oomed.Load(); kill != nil {
		return kill.limit
	}
	return ""
}

// record writes how a process has ended.
func (c *Container) record(file string, pid int, exit reaper.Exit, cause string) {
	limit := "" // an exec has one only if it was the victim itself
	if file == ExitFile || cause == causeOOM {
		limit = c.oomLimit()
	}
	err := writeExitRecord(filepath.Join(c.cfg.Bundle, file), ExitRecord{
		Timestamp: exit.At, Pid: int32(pid), Status: int32(exit.Status), //nolint:gosec // below 2^22 and 256
		Signal: int(exit.Signal), CoreDumped: exit.Core, Cause: cause, OOMLimit: limit,
	})
	if err != nil {
		c.cfg.Log.Warn("exit not recorded; if the shim dies now its status is lost", "task", c.cfg.ID, "file", file, "err", err)
	}
}

// encode is json.Marshal. A record that has no more than containerd's own, as most have, is put together by hand,
// which saves a fiftieth of an exec.
func (r ExitRecord) encode() ([]byte, error) {
	if r != (ExitRecord{Timestamp: r.Timestamp, Pid: r.Pid, Status: r.Status}) {
		return json.Marshal(r)
	}
	b, err := r.Timestamp.AppendText([]byte(`{"Timestamp":"`))
	b = strconv.AppendInt(append(b, `","Pid":`...), int64(r.Pid), 10)
	b = strconv.AppendInt(append(b, `,"Status":`...), int64(r.Status), 10)
	return append(b, '}'), err
}

// writeExitRecord replaces a record in one step.
func writeExitRecord(path string, record ExitRecord) error {
	content, err := record.encode()
	if err != nil {
		return fmt.Errorf("encode exit record: %w", err)
	}
	if err := bundle.Replace(path, content, 0o600); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// forgetExit removes what an earlier container in the same bundle has left, or it would be taken for
// the end of the next one.
func forgetExit(dir string) error {
	return errors.Join(forget(dir, ExitFile), forget(dir, oomFile))
}

// forget removes a record, if it is there.
func forget(dir, file string) error {
	if err := bundle.Remove(filepath.Join(dir, file)); err != nil {
		return fmt.Errorf("remove an exit record: %v", err) //nolint:errorlint // no errno that ttrpc would take for another error
	}
	return nil
}

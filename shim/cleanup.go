package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/bundle"
	"holdfast/internal/cgroup"
	"holdfast/internal/mount"
	"holdfast/internal/wire"
	"holdfast/process"
	"holdfast/runc"
)

// Managers kill a delete that takes five seconds (contract 2.2). Within that the runtime has to
// leave time for the mounts, and we for the answer.
const (
	runtimeLimit = 3500 * time.Millisecond
	cleanLimit   = 4500 * time.Millisecond
	alarmAfter   = 4700 * time.Millisecond
	groupLimit   = time.Second // for processes of a killed runtime to die
)

const (
	pidFile = bundle.InitFile
	rootfs  = "rootfs"
	// killedStatus is the exit status that is reported of a container whose end nobody saw.
	killedStatus = 128 + 9
)

// cleanup is one run of the action delete.
type cleanup struct {
	*call
	container

	mu      sync.Mutex // guards what follows
	current string     // what is being done
}

// container is one whose daemon may be dead.
type container struct{ namespace, id, bundle string }

// cleanUp removes what a dead shim has left of one container and answers how it ended (contract 2).
// It is also run after each normal deletion, beside a living daemon that may serve other
// containers: so it rests on the bundle's files alone and touches nothing of anybody else, except
// that the death of a pod's daemon ends the whole pod (see endPod).
//
// What cannot be removed is named on stderr, one line each; the answer is given all the same.
func cleanUp(ctx context.Context, c *call) error {
	if err := checkNames(c.namespace, c.id); err != nil {
		return err
	}
	bundle, err := bundleOf(c.flags)
	if err != nil {
		return err
	}
	d := &cleanup{call: c, container: container{c.namespace, c.id, bundle}}
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	alarm := time.AfterFunc(alarmAfter, d.alarm)
	defer alarm.Stop()

	d.step("removing the container")
	// The container goes by what it has recorded before we touch anything.
	answer := d.lastWords()
	pod := make(chan struct{})
	go func() { // ends with its runtime commands, which ctx bounds
		defer close(pod)
		d.endPod(ctx)
	}()
	d.warn(d.container.end(ctx))
	d.warn(reportCrash(bundle))
	if answer.ExitedAt == nil { // the shim was killed, and perhaps a runtime with it
		answer.ExitedAt = api.Time(time.Now())
		d.warn(d.abandoned())
	}
	d.step("unmounting the root filesystem")
	if err := mount.Unmount(ctx, filepath.Join(bundle, rootfs)); err != nil {
		d.warn(fmt.Errorf("cannot unmount the root filesystem of %s: %w", c.id, err))
	}
	d.step("ending the pod's other containers")
	<-pod
	if _, err := c.stdout.Write(wire.Marshal(answer)); err != nil {
		return fmt.Errorf("answer on stdout: %w", err)
	}
	return nil
}

// bundleOf returns the path of the bundle, which need not exist any more. Managers run us in it
// and name it too; some only run us in a bundle beside it.
func bundleOf(f *flags) (string, error) {
	if f.bundle != "" {
		path, err := filepath.Abs(f.bundle)
		if err != nil {
			return "", fmt.Errorf("find the bundle %s: %w", f.bundle, err)
		}
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("cannot find the bundle: %w; name it with -bundle", err)
	}
	return filepath.Join(filepath.Dir(dir), f.id), nil
}

// step says what is being done, for alarm.
func (d *cleanup) step(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = what
}

// alarm tells on stderr where we are stuck, before the manager kills us without a word.
func (d *cleanup) alarm() {
	d.mu.Lock()
	what := d.current
	d.mu.Unlock()
	d.warn(fmt.Errorf("still %s of %s after %v", what, d.container.id, alarmAfter))
}

// warn writes err to stderr, if it is one.
func (d *cleanup) warn(err error) {
	if err == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.complain(err)
}

// lastWords returns what is known of the container's end. The time is missing if nobody saw it.
func (d *cleanup) lastWords() *api.DeleteResponse {
	record, err := readExit(d.bundle)
	d.warn(err)
	if record == nil {
		return &api.DeleteResponse{Pid: uint32(d.initPid()), ExitStatus: killedStatus}
	}
	return &api.DeleteResponse{
		Pid: uint32(record.Pid), ExitStatus: uint32(record.Status), ExitedAt: api.Time(record.Timestamp),
	}
}

// readExit returns the container's record of its exit, or nil if there is none. A record that is
// there but is of no use is an error as well.
func readExit(bundle string) (*process.ExitRecord, error) {
	path := filepath.Join(bundle, process.ExitFile)
	data, err := readInBundle(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var record process.ExitRecord
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err == nil && (record.Pid <= 0 || record.Status < 0 || record.Timestamp.IsZero()) {
		err = errors.New("it holds no exit")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w; reporting status %d", path, err, killedStatus)
	}
	return &record, nil
}

// initPid returns the pid of the container's init process, or 0 if it is not known.
func (c container) initPid() int { return bundle.InitPid(c.bundle) }

// neighbours returns the pids of the init processes of other containers.
func (c container) neighbours() []int { return bundle.Neighbours(c.bundle) }

// end kills the container's processes and removes its state from the runtime, within the time that
// the runtime has. It is no error if there is nothing of either.
func (c container) end(ctx context.Context) error {
	o, note := LoadOptions(c.bundle)
	rt := newRuntime(o, c.namespace, c.id, c.bundle)
	init := c.prove(c.initPid())
	ended := exists(filepath.Join(c.bundle, process.ExitFile))
	if init == nil && !ended {
		init = c.halfMade()
	}
	if init == nil && isRunc(rt.Binary) && !exists(filepath.Join(rt.Root, c.id)) {
		// runc keeps its state there, and would only say that it knows no such container. This is
		// what follows every normal deletion, so it had better be cheap.
		if ended {
			return note
		}
		return errors.Join(note, c.removeGroups(ctx))
	}
	// First, since a runtime whose processes do not die uses up all the time that there is.
	left, killErr := init.kill(c.neighbours)
	limited, cancel := context.WithTimeout(ctx, runtimeLimit)
	defer cancel()
	err := rt.Delete(limited, true)
	if err != nil && !left && killErr == nil && init == nil && !exists(filepath.Join(rt.Root, c.id)) {
		err = nil // the runtime is not there, or does not know what was never created
	}
	if err != nil {
		err = fmt.Errorf("cannot delete container %s: %w", c.id, err)
	}
	if !ended {
		err = errors.Join(err, c.removeGroups(limited))
	}
	return errors.Join(note, err, killErr)
}

// removeGroups removes the control groups of a container that a killed runtime has made and noted
// nowhere.
func (c container) removeGroups(ctx context.Context) error {
	spec, err := runc.ReadSpec(c.bundle)
	if err != nil {
		return nil // without a bundle there was no create
	}
	limited, cancel := context.WithTimeout(ctx, groupLimit)
	defer cancel()
	if err := cgroup.Remove(limited, spec.CgroupsPath, c.neighbours); err != nil {
		return fmt.Errorf("cannot remove what is left of container %s: %w", c.id, err)
	}
	return nil
}

// isRunc tells whether the runtime's binary is runc itself.
func isRunc(binary string) bool { return binary == "" || filepath.Base(binary) == "runc" }

// exists tells whether there may be something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// What a daemon inherits is prepared in the process that starts it, before it is forked: so there
// is no moment at which the daemon runs without it, and nothing to undo if it fails.

// sealDescriptors keeps everything but the standard streams from being inherited by the processes
// we start. Whatever the manager had open would stay open as long as the shim lives (demand.md 58).
func sealDescriptors() error {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	return sealEach() // Linux before 5.11 has no such flag
}

// sealEach seals the descriptors that are open now, one by one.
func sealEach() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("seal descriptors: %w", err)
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

const (
	oomScoreFile = "/proc/self/oom_score_adj"
	maxOOMScore  = 1000
)

// raiseOOMScore makes us, and the daemon after us, one step more likely to be killed for memory
// than the manager, whose score we inherited (contract 1.6.11, T15).
func raiseOOMScore() error {
	data, err := readFile(oomScoreFile, maxFile)
	if err != nil {
		return fmt.Errorf("raise the OOM score: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("raise the OOM score: %w", err)
	}
	text := strconv.Itoa(min(score+1, maxOOMScore))
	if err := overwrite(oomScoreFile, text); err != nil && !excused(err) {
		return fmt.Errorf("raise the OOM score: %w", err)
	}
	return nil
}

// prctl(2) values of linux/prctl.h that x/sys does not have.
const (
	schedCoreCreate = 1
	schedCoreGroup  = 2 // PIDTYPE_PGID: all threads of the process group
)

// newSchedCore gives our process group, and the daemon that is forked from it, a core scheduling
// cookie of its own, so that hyper-threads of a core are not shared with others.
func newSchedCore() error {
	err := unix.Prctl(unix.PR_SCHED_CORE, schedCoreCreate, 0, schedCoreGroup, 0)
	if err != nil {
		return fmt.Errorf("cannot enable core scheduling: %w; unset sched_core, or use a kernel with CONFIG_SCHED_CORE", err)
	}
	return nil
}

// joinCgroup moves us, and so the daemon that we are about to fork, into an existing cgroup: on v1
// in each hierarchy that has it, on v2 in the one. What the daemon allocates is thus accounted
// there from its first page on.
func joinCgroup(path string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	joined := 0
	for _, m := range mounts {
		procs := filepath.Join(m.Mountpoint, filepath.Join("/", path), "cgroup.procs")
		switch err := overwrite(procs, strconv.Itoa(os.Getpid())); {
		case err == nil, excused(err):
			joined++
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("join the shim's cgroup: %w", err)
		}
	}
	if joined == 0 {
		return fmt.Errorf("cannot join cgroup %s: no hierarchy has it; create it, or drop ShimCgroup from the runtime's options", path)
	}
	return nil
}

// overwrite writes text to an existing file of the kernel's.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// excused tells whether err is a refusal that is normal for who runs without root's rights in the
// first user namespace; it must not keep containers from starting (contract T16).
func excused(err error) bool {
	return errors.Is(err, fs.ErrPermission) && (os.Geteuid() != 0 || inUserNamespace())
}

// inUserNamespace tells whether our uids are mapped. The first namespace maps all of them to
// themselves (user_namespaces(7)).
func inUserNamespace() bool {
	data, err := readFile("/proc/self/uid_map", maxFile)
	if err != nil {
		return false // a kernel without user namespaces has no such file
	}
	f := strings.Fields(string(data))
	return len(f) != 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295"
}

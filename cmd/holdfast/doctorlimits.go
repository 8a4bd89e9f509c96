package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// A shim needs less than a hundred descriptors, and some for each container and exec.
	fewFiles = 4096
	// What kernels have as their default, or had.
	defaultPids     = 32768
	defaultPipe     = 1 << 20
	defaultPages    = 16384
	enoughInstances = 512
	enoughWatches   = 8192

	shimSockets = "/run/containerd/s"
)

// fileLimit looks at the limit that shims inherit from the manager.
func (h host) fileLimit(m manager) symptom {
	const check = "open files"
	limits, err := h.read(m.proc + "/limits")
	if err != nil {
		return warn(check, err.Error(), "run holdfast as root")
	}
	for line := range strings.Lines(limits) {
		fields := strings.Fields(strings.TrimPrefix(line, "Max open files"))
		if !strings.HasPrefix(line, "Max open files") || len(fields) < 2 {
			continue
		}
		soft, hard := fields[0], fields[1]
		fact := fmt.Sprintf("%s, at most %s, of %s", soft, hard, m.name)
		if n, err := strconv.ParseUint(hard, 10, 64); err == nil && n < fewFiles {
			return warn(check, fact, fmt.Sprintf("set LimitNOFILE= of containerd's unit to %d or more", fewFiles))
		}
		return ok(check, fact, "")
	}
	return warn(check, "not told by the kernel", "look at "+m.proc+"/limits")
}

// number reads a file of the host that holds one.
func (h host) number(path string) (uint64, error) {
	text, err := h.read(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// processLimit compares the processes that there are with those that there may be.
func (h host) processLimit() symptom {
	const check = "processes"
	pids, err := h.number("/proc/sys/kernel/pid_max")
	threads, err2 := h.number("/proc/sys/kernel/threads-max")
	load, err3 := h.read("/proc/loadavg") // 0.00 0.01 0.05 1/234 5678
	if err := errors.Join(err, err2, err3); err != nil {
		return warn(check, err.Error(), "mount /proc")
	}
	most, now := min(pids, threads), uint64(0)
	if fields := strings.Fields(load); len(fields) > 3 {
		_, all, _ := strings.Cut(fields[3], "/")
		now, _ = strconv.ParseUint(all, 10, 64) // 0 if the kernel writes it in another way
	}
	fact := fmt.Sprintf("%d of %d", now, most)
	switch {
	case now*10 > most*9:
		return fail(check, fact, "find out who starts so many, or raise kernel.pid_max and kernel.threads-max")
	case now*2 > most || most < defaultPids:
		return warn(check, fact, "raise kernel.pid_max and kernel.threads-max: threads of shims and containers count too")
	}
	return ok(check, fact, "")
}

func (h host) socketDir() symptom {
	const check = "socket directory"
	info, err := os.Stat(h.root + shimSockets)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok(check, shimSockets+" is made when it is needed", "")
	case err != nil:
		return warn(check, err.Error(), "run holdfast as root")
	case !info.IsDir():
		return fail(check, shimSockets+" is no directory", "remove it")
	}
	var st unix.Stat_t
	if err := unix.Stat(h.root+shimSockets, &st); err != nil {
		return warn(check, err.Error(), "run holdfast as root")
	}
	fact := fmt.Sprintf("%s, mode %#o, uid %d", shimSockets, info.Mode().Perm(), st.Uid)
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fail(check, fact, "chown root "+shimSockets+": its owner can exchange sockets")
	case info.Mode().Perm()&0o077 != 0:
		return warn(check, fact, "chmod 700 "+shimSockets)
	}
	return ok(check, fact, "")
}

func (h host) pipeSize() symptom {
	const check = "fs.pipe-max-size"
	n, err := h.number("/proc/sys/fs/pipe-max-size")
	if err != nil {
		return warn(check, err.Error(), "mount /proc")
	}
	fact := bytesText(n)
	if n < defaultPipe {
		return warn(check, fact, fmt.Sprintf("sysctl %s=%d: in rootless mode output waits in pipes no larger than that", check, defaultPipe))
	}
	return ok(check, fact, "")
}

func (h host) pipePages() symptom {
	const check = "fs.pipe-user-pages-soft"
	n, err := h.number("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		return warn(check, err.Error(), "mount /proc")
	}
	fact := fmt.Sprintf("%d pages", n)
	if n == 0 {
		return ok(check, "no limit", "")
	}
	if n < defaultPages {
		return warn(check, fact, fmt.Sprintf("sysctl %s=%d: in rootless mode all pipes together may not grow over that", check, defaultPages))
	}
	return ok(check, fact, "")
}

// inotify is not for our shims, which do without, but for what lives beside them.
func (h host) inotify() symptom {
	const check = "inotify"
	instances, err := h.number("/proc/sys/fs/inotify/max_user_instances")
	watches, err2 := h.number("/proc/sys/fs/inotify/max_user_watches")
	if err := errors.Join(err, err2); err != nil {
		return warn(check, err.Error(), "use a kernel with inotify: kubelet and containerd need it")
	}
	fact := fmt.Sprintf("%d instances, %d watches for each user", instances, watches)
	if instances < enoughInstances || watches < enoughWatches {
		return warn(check, fact, fmt.Sprintf(
			"sysctl fs.inotify.max_user_instances=%d: kubelet, followers of logs and containerd's own shims use them up; ours uses none", enoughInstances))
	}
	return ok(check, fact, "")
}

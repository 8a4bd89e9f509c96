package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// doctorLimit bounds one program that is asked for its version.
const doctorLimit = 5 * time.Second

// How well something is.
const (
	wellOK   = "ok"
	wellWarn = "warn"
	wellFail = "fail"
)

// symptom is one line of what the doctor says.
type symptom struct {
	Status string `json:"status"` // ok, warn or fail
	Check  string `json:"check"`
	Fact   string `json:"fact"`
	Advice string `json:"advice,omitempty"`
}

// host is the machine that is looked at.
type host struct {
	root string // of /proc, /sys and /etc; "" = /
	// run returns what a program prints, by its name in PATH or its path.
	run func(ctx context.Context, program string, args ...string) (string, error)
	// find returns the path of a program in a list of directories like PATH.
	find func(program, path string) string
	path string // PATH of this process
}

func thisHost() host {
	return host{run: runProgram, find: findProgram, path: os.Getenv("PATH")}
}

func runProgram(ctx context.Context, program string, args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	cmd := exec.CommandContext(limited, program, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	return string(out), err
}

func findProgram(program, path string) string {
	for _, dir := range filepath.SplitList(path) {
		full := filepath.Join(dir, program)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full
		}
	}
	return ""
}

// read returns a file of the host, without the blanks around its text.
func (h host) read(path string) (string, error) {
	data, err := os.ReadFile(h.root + path)
	return strings.TrimSpace(string(data)), err
}

// doctor prints what it finds, and tells whether something fails.
func doctor(ctx context.Context, out io.Writer, h host, asJSON bool) (failing bool, err error) {
	symptoms := h.examine(ctx)
	for _, s := range symptoms {
		failing = failing || s.Status == wellFail
	}
	if asJSON {
		return failing, writeJSON(out, symptoms)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATUS\tCHECK\tFACT\tWHAT TO DO")
	for _, s := range symptoms {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.Status, s.Check, s.Fact, dash(s.Advice))
	}
	return failing, table.Flush()
}

func (h host) examine(ctx context.Context) []symptom {
	manager := h.findManager()
	symptoms := []symptom{h.kernel(), h.cgroups(), h.controllers()}
	symptoms = append(symptoms, h.runtimes(ctx)...)
	symptoms = append(symptoms, h.criu(ctx), h.fileLimit(manager), h.processLimit(), h.socketDir(), h.pipeSize(), h.pipePages(), h.inotify())
	return append(symptoms, h.containerd(ctx, manager)...)
}

func ok(check, fact, advice string) symptom   { return symptom{wellOK, check, fact, advice} }
func warn(check, fact, advice string) symptom { return symptom{wellWarn, check, fact, advice} }
func fail(check, fact, advice string) symptom { return symptom{wellFail, check, fact, advice} }

// older tells whether a version, "5.10.0-9-amd64" or "1.1.5+ds1", is before major.minor. One that
// cannot be read is not.
func older(version string, major, minor int) bool {
	var a, b int
	if n, err := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &a, &b); err != nil || n != 2 {
		return false
	}
	return a < major || a == major && b < minor
}

func (h host) kernel() symptom {
	release, err := h.read("/proc/sys/kernel/osrelease")
	switch {
	case err != nil:
		return fail("kernel", err.Error(), "mount /proc")
	case older(release, 5, 3):
		return warn("kernel", release, "use 5.3 or later: without pidfd_open(2) a process cannot be signalled for certain")
	}
	return ok("kernel", release, "")
}

func (h host) exists(path string) bool {
	_, err := os.Stat(h.root + path)
	return err == nil
}

func (h host) cgroups() symptom {
	switch {
	case h.exists("/sys/fs/cgroup/cgroup.controllers"):
		return ok("cgroup version", "2", "")
	case h.exists("/sys/fs/cgroup/unified/cgroup.controllers"):
		return ok("cgroup version", "1, with 2 beside it", "")
	case h.exists("/sys/fs/cgroup/memory") || h.exists("/sys/fs/cgroup/pids"):
		return ok("cgroup version", "1", "")
	}
	return fail("cgroup version", "none is mounted", "mount cgroup2 on /sys/fs/cgroup")
}

// controllers are those without which limits and statistics are missing.
func (h host) controllers() symptom {
	have := map[string]bool{}
	if list, err := h.read("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		for _, name := range strings.Fields(list) {
			have[name] = true
		}
	} else {
		for _, name := range []string{"cpu", "cpuset", "memory", "pids", "blkio"} {
			have[name] = h.exists("/sys/fs/cgroup/" + name)
		}
		have["io"] = have["blkio"]
	}
	var found, missing []string
	for _, name := range []string{"cpu", "cpuset", "memory", "pids", "io"} {
		if have[name] {
			found = append(found, name)
		} else {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) == 0:
		return ok("cgroup controllers", strings.Join(found, " "), "")
	case !have["memory"] || !have["pids"]:
		return fail("cgroup controllers", "missing: "+strings.Join(missing, " "),
			"enable them; for memory that may need cgroup_enable=memory on the kernel's command line")
	}
	return warn("cgroup controllers", "missing: "+strings.Join(missing, " "), "enable them, or do without their limits and figures")
}

// program returns the first line of what a program says of its version; "" if it is not there.
func (h host) program(ctx context.Context, name string, args ...string) (version string, err error) {
	path := h.find(name, h.path)
	if path == "" {
		return "", nil
	}
	out, err := h.run(ctx, path, args...)
	if err != nil {
		return path, fmt.Errorf("%s does not run: %w", path, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line, nil
}

func (h host) runtimes(ctx context.Context) []symptom {
	runc, runcErr := h.program(ctx, "runc", "--version")
	crun, crunErr := h.program(ctx, "crun", "--version")
	var first symptom
	switch version := strings.TrimPrefix(runc, "runc version "); {
	case runcErr != nil:
		first = fail("runc", runcErr.Error(), "install it anew")
	case runc == "" && crun == "":
		first = fail("runc", "not installed", "install runc or crun: without one no container can run")
	case runc == "":
		first = warn("runc", "not installed", "install it, or name crun as BinaryName in the options of the runtime")
	case older(version, 1, 1):
		first = warn("runc", version, "use 1.1 or later")
	default:
		first = ok("runc", version, "")
	}
	second := ok("crun", "not installed", "needed only if options name it")
	switch {
	case crunErr != nil:
		second = fail("crun", crunErr.Error(), "install it anew, or remove it")
	case crun != "":
		second = ok("crun", strings.TrimPrefix(crun, "crun version "), "")
	}
	return []symptom{first, second}
}

func (h host) criu(ctx context.Context) symptom {
	version, err := h.program(ctx, "criu", "--version")
	switch {
	case err != nil:
		return warn("criu", err.Error(), "install it anew for checkpoint and restore")
	case version == "":
		return ok("criu", "not installed", "install it for checkpoint and restore")
	}
	return ok("criu", strings.TrimPrefix(version, "Version: "), "")
}

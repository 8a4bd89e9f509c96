package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	flag "github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"holdfast/internal/node"
)

// verdict is how well something is.
type verdict string

const (
	fit   verdict = "ok"
	poor  verdict = "warn" // it works, and could be better
	unfit verdict = "FAIL" // containers cannot be run, or not all of them
)

// finding is what was seen of one thing.
type finding struct {
	verdict
	fact   string
	advice string // what to do, unless it is ok
}

// checks are what a doctor looks at, in this order. Read only.
var checks = []struct {
	name string
	look func(context.Context) finding
}{
	{"kernel", lookAtKernel},
	{"cgroups", func(context.Context) finding { return lookAtCgroups("/sys/fs/cgroup") }},
	{"shim", lookAtShim},
	{"runc", func(ctx context.Context) finding { return lookAtRuntime(ctx, "runc", unfit) }},
	{"crun", func(ctx context.Context) finding { return lookAtRuntime(ctx, "crun", fit) }},
	{"criu", lookAtCRIU},
	{"containerd", lookAtContainerd},
	{"sockets", func(context.Context) finding { return lookAtSockets("/run/containerd/s") }},
	{"pipes", func(context.Context) finding { return lookAtPipes("/proc/sys/fs") }},
	{"descriptors", lookAtDescriptors},
	{"left behind", lookAtLeftovers},
}

func setupDoctor(*flag.FlagSet) action {
	return func(ctx context.Context, _ []string) (int, error) { return examine(ctx, os.Stdout) }
}

// examine returns 1 if something is unfit.
func examine(ctx context.Context, w io.Writer) (status int, err error) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		f := c.look(ctx)
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.name, f.verdict, f.fact)
		if f.advice != "" {
			fmt.Fprintf(table, "\t\t→ %s\n", f.advice)
		}
		if f.verdict == unfit {
			status = 1
		}
	}
	return status, table.Flush()
}

func lookAtKernel(context.Context) finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return finding{unfit, err.Error(), "look why uname(2) fails"}
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return finding{poor, "Linux " + release, "its version is not understood; 5.11 and newer is best"}
	}
	switch {
	case major < 4 || major == 4 && minor < 5:
		return finding{unfit, "Linux " + release, "use 4.5 or newer: the shim hands output on with splice(2) and counts on cgroups of that time"}
	case major < 5 || major == 5 && minor < 14:
		return finding{poor, "Linux " + release, "with 5.14 and newer a whole container is killed in one step (cgroup.kill)"}
	}
	return finding{fit, "Linux " + release, ""}
}

// needed are the controllers that limits in a pod or a container need.
var needed = []string{"cpu", "memory", "pids"}

// lookAtCgroups tells how control groups are mounted at root.
func lookAtCgroups(root string) finding {
	list, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		if _, err := os.Stat(filepath.Join(root, "memory")); err != nil {
			return finding{unfit, "no control groups at " + root, "mount them: mount -t cgroup2 none " + root}
		}
		return finding{poor, "version 1, or hybrid", "with version 2 alone OOM kills and statistics tell more; boot with systemd.unified_cgroup_hierarchy=1"}
	}
	controllers := strings.Fields(string(list))
	var missing []string
	for _, n := range needed {
		if !bytes.Contains(append(list, ' '), []byte(n)) {
			missing = append(missing, n)
		}
	}
	fact := "version 2: " + strings.Join(controllers, " ")
	if len(missing) > 0 {
		return finding{poor, fact, "limits need " + strings.Join(missing, ", ") + ", which are not there; enable them above (cgroup.subtree_control)"}
	}
	return finding{fit, fact, ""}
}

func lookAtShim(ctx context.Context) finding {
	path, err := exec.LookPath(shimName)
	if err != nil {
		return finding{unfit, "not in PATH", "install " + shimName + " into a directory of containerd's PATH, /usr/local/bin for example"}
	}
	said, err := say(ctx, path, "-v", 3)
	if err != nil {
		return finding{unfit, path, "it does not run: " + err.Error()}
	}
	return finding{fit, path + ", " + said, ""}
}

// lookAtRuntime tells the version of an OCI runtime; missing is the verdict if it is not there.
func lookAtRuntime(ctx context.Context, name string, missing verdict) finding {
	path, err := exec.LookPath(name)
	if err != nil {
		f := finding{missing, "not in PATH", ""}
		if missing != fit {
			f.advice = "install " + name + ", or name another runtime as BinaryName in containerd's options"
		}
		return f
	}
	said, err := say(ctx, path, "--version", 1)
	if err != nil {
		return finding{unfit, path, "it does not run: " + err.Error()}
	}
	return finding{fit, path + ", " + said, ""}
}

func lookAtCRIU(context.Context) finding {
	path, err := exec.LookPath("criu")
	if err != nil {
		return finding{fit, "not in PATH: no checkpoints, and output goes the direct way", ""}
	}
	return finding{fit, path + ": checkpoints, so output of a first process goes through the shim (docs/decisions/0004)", ""}
}

func lookAtContainerd(ctx context.Context) finding {
	path, err := exec.LookPath("containerd")
	if err != nil {
		return finding{poor, "not in PATH", "the shim is started by containerd, dockerd or CRI-O; `holdfast run` needs none of them"}
	}
	said, err := say(ctx, path, "--version", 1)
	if err != nil {
		return finding{unfit, path, "it does not run: " + err.Error()}
	}
	const socket = "/run/containerd/containerd.sock"
	if node.IsDead(socket) {
		return finding{poor, said, "nobody listens on " + socket + ": is it running?"}
	}
	return finding{fit, said, ""}
}

// lookAtSockets tells whether others could get at the sockets of the shims.
func lookAtSockets(dir string) finding {
	info, err := os.Stat(dir)
	if os.IsNotExist(err) {
		return finding{fit, dir + " is not there yet; the first shim makes it", ""}
	}
	if err != nil {
		return finding{unfit, err.Error(), "make " + dir + " a directory"}
	}
	fact := fmt.Sprintf("%s has mode %#o", dir, info.Mode().Perm())
	if info.Mode().Perm()&0o022 != 0 {
		return finding{unfit, fact, "others may plant a socket there: chmod go-w " + dir}
	}
	return finding{fit, fact, ""}
}

// lookAtPipes tells how large the kernel lets FIFOs become, where output waits while the manager is away.
func lookAtPipes(dir string) finding {
	text, err := os.ReadFile(filepath.Join(dir, "pipe-max-size"))
	if err != nil {
		return finding{poor, err.Error(), "mount /proc"}
	}
	size, _ := strconv.Atoi(strings.TrimSpace(string(text))) // the kernel writes a number
	fact := fmt.Sprintf("at most %s each for users without CAP_SYS_RESOURCE (fs.pipe-max-size)", kibi(int64(size)))
	if size < 1<<20 {
		return finding{poor, fact, "output flows faster with 1 MiB: sysctl fs.pipe-max-size=1048576"}
	}
	return finding{fit, fact, ""}
}

func lookAtDescriptors(context.Context) finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return finding{poor, err.Error(), "look why getrlimit(2) fails"}
	}
	fact := fmt.Sprintf("at most %d, of which a process may use %d unless it asks", limit.Max, limit.Cur)
	if limit.Max < 4096 {
		return finding{poor, fact, "a pod of many containers and execs needs more: LimitNOFILE= of containerd's unit"}
	}
	return finding{fit, fact, ""}
}

func lookAtLeftovers(ctx context.Context) finding {
	n, err := node.Find(ctx, node.Config{})
	if err != nil {
		return finding{poor, err.Error(), "look as root"}
	}
	fact := fmt.Sprintf("%d shims run; %d sockets and %d bundles have none", len(n.Shims), len(n.Sockets), len(n.Bundles))
	if len(n.Sockets)+len(n.Bundles) > 0 {
		return finding{poor, fact, "`holdfast gc` names them"}
	}
	return finding{fit, fact, ""}
}

// say returns the first lines of what a program prints, as one.
func say(ctx context.Context, path, flag string, lines int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, flag).CombinedOutput()
	all := strings.SplitAfterN(string(out), "\n", lines+1)
	said := strings.Join(strings.Fields(strings.Join(all[:min(lines, len(all))], "")), " ")
	if err != nil {
		return said, fmt.Errorf("%w: %s", err, said)
	}
	return said, nil
}

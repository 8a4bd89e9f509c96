package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clockSlack is how far the start of a process and the time of a file may be apart that were noted at
// the same moment: both are rounded, and the clock of files is coarse.
const clockSlack = 2 * time.Second

// Living returns a reason for which a bundle may still be in use, or "" if there is certainly none:
// no shim has it, no process works in it, none is in the control group of its container, and the
// init process that it names has ended, also if its pid belongs to somebody else by now. It looks at
// the process table anew. What cannot be read counts as a reason.
func Living(cfg Config, b Bundle) string {
	cfg = cfg.withDefaults()
	if real, err := filepath.EvalSymlinks(b.Dir); err == nil { // as the kernel calls it
		b.Dir = real
	}
	entries, err := os.ReadDir(cfg.ProcRoot)
	if err != nil {
		return fmt.Sprintf("the process table cannot be read: %v", err)
	}
	names := cgroupNames(b)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if reason := holds(cfg.ProcRoot, pid, b, names); reason != "" {
			return reason
		}
	}
	return initLives(cfg.ProcRoot, b.Dir)
}

// holds returns why the process pid needs the bundle, "" if it does not or has ended.
func holds(root string, pid int, b Bundle, names []string) string {
	if _, err := readStat(root, pid); errors.Is(err, errGone) {
		return "" // what waits to be reaped is still in its control group
	}
	dir := filepath.Join(root, strconv.Itoa(pid))
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err == nil && strings.HasPrefix(filepath.Base(string(line[:endOfWord(line)])), shimPrefix) {
		// Also an action, of which the manager may be running one right now.
		args := strings.Split(string(line), "\x00")
		for i := range args[:len(args)-1] {
			if strings.TrimLeft(args[i], "-") == "id" && args[i+1] == b.ID || strings.TrimLeft(args[i], "-") == "id="+b.ID {
				return fmt.Sprintf("pid %d is a shim for %s", pid, b.ID)
			}
		}
	}
	cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
	// Root may be kept from looking at some processes, such as the first one of a sandbox. Those of a
	// container are told by their control group all the same.
	if os.IsPermission(err) && os.Geteuid() != 0 {
		return fmt.Sprintf("pid %d cannot be looked at; run holdfast as root", pid)
	}
	if err == nil && (cwd == b.Dir || strings.HasPrefix(cwd, b.Dir+"/")) {
		return fmt.Sprintf("pid %d works in it", pid)
	}
	groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return "" // it has ended
	}
	for line := range strings.Lines(string(groups)) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(part) != 3 {
			continue
		}
		for _, name := range names {
			if strings.Contains(part[2]+"/", name+"/") {
				return fmt.Sprintf("pid %d is in the control group %s", pid, part[2])
			}
		}
	}
	return ""
}

// endOfWord returns where the first argument ends.
func endOfWord(line []byte) int {
	for i, c := range line {
		if c == 0 {
			return i
		}
	}
	return len(line)
}

// cgroupNames are the ends of the paths of control groups that may be the container's: with the
// one that its spec asks for, those that runtimes make if it asks for none.
func cgroupNames(b Bundle) []string {
	names := []string{"/" + b.ID, "-" + b.ID + ".scope", "/" + b.ID + ".scope"}
	found, ok := readSpec(b.Dir)
	if asked := found.Linux.CgroupsPath; ok && asked != "" {
		part := strings.Split(asked, ":") // slice:prefix:name for systemd
		switch {
		case len(part) != 3:
			if name := path.Join("/", asked); name != "/" {
				names = append(names, name)
			}
		case strings.HasSuffix(part[2], ".slice"):
			names = append(names, "/"+part[2])
		default:
			names = append(names, "/"+strings.TrimPrefix(part[1]+"-"+part[2]+".scope", "-"))
		}
	}
	return names
}

// initLives returns why the init process of a bundle may be alive. A process that was started after
// its pid was noted is another one.
func initLives(root, dir string) string {
	file := filepath.Join(dir, "init.pid")
	info, err := os.Lstat(file)
	if os.IsNotExist(err) {
		return ""
	}
	data, readErr := readFile(file, maxSmall)
	pid, numErr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err := cmp.Or(err, readErr, numErr); err != nil || pid <= 0 {
		return fmt.Sprintf("%s cannot be understood", file)
	}
	stat, err := readStat(root, pid)
	if errors.Is(err, errGone) {
		return ""
	}
	boot := bootTime(root)
	if err != nil || boot.IsZero() {
		return fmt.Sprintf("pid %d of its init process is in use", pid)
	}
	started := boot.Add(time.Duration(stat.start) * tick)
	if started.After(info.ModTime().Add(clockSlack)) {
		return ""
	}
	return fmt.Sprintf("its init process may be pid %d, which was there when that was noted", pid)
}

// Mounts returns the mount points in or below dir, in the mount namespace of this process.
func Mounts(cfg Config, dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(cfg.withDefaults().ProcRoot, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if at := unescape(fields[4]); at == dir || strings.HasPrefix(at, dir+"/") {
			found = append(found, at)
		}
	}
	return found, nil
}

// unescape undoes what the kernel does to blanks and backslashes: "\040".
func unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// ShimBinary returns the program that a manager has noted in a bundle, for the delete action; "" if
// there is none, or if that is not there any more.
func ShimBinary(dir string) string {
	data, err := readFile(filepath.Join(dir, "shim-binary-path"), maxSmall)
	binary := strings.TrimSpace(string(data))
	if err != nil || !filepath.IsAbs(binary) || !strings.HasPrefix(filepath.Base(binary), shimPrefix) {
		return ""
	}
	if info, err := os.Stat(binary); err != nil || info.Mode().Type() != fs.FileMode(0) {
		return ""
	}
	return binary
}

// Siblings returns the other bundles beside b whose containers were served by the same shim.
func Siblings(b Bundle) []Bundle {
	own := notedAddresses(b.Dir)
	above := filepath.Dir(b.Dir)
	var found []Bundle
	for _, id := range directories(above) {
		other := Bundle{Namespace: b.Namespace, ID: id, Dir: filepath.Join(above, id)}
		if other.Dir == b.Dir {
			continue
		}
		for _, address := range notedAddresses(other.Dir) {
			if slices.Contains(own, address) {
				other.Address = address
				found = append(found, other)
				break
			}
		}
	}
	return found
}

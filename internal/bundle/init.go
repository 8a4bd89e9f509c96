package bundle

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// InitFile is where a runtime writes the pid of the init process. It is also read by the delete action,
// and by that of a stock shim (contract 1.8).
const InitFile = "init.pid"

// InitPid returns the pid that the init process of a bundle has, or has had, or 0 if it is not known.
func InitPid(dir string) int {
	data, err := ReadFile(filepath.Join(dir, InitFile), pidLimit) // one that is longer is no pid
	if err != nil {
		return 0
	}
	pid, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 32)
	if err != nil || pid < 0 {
		return 0
	}
	return int(pid)
}

// pidLimit is more than a pid has digits.
const pidLimit = 64

// Neighbours returns what InitPid says of the other bundles in the directory that dir is in: those of the
// namespace. Containers that are not started, and those whose bundles are elsewhere, are missing.
func Neighbours(dir string) []int {
	above, own := filepath.Dir(filepath.Clean(dir)), filepath.Base(dir)
	entries, err := os.ReadDir(above)
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if e.Name() == own {
			continue
		}
		if pid := InitPid(filepath.Join(above, e.Name())); pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"holdfast/internal/reaper"
)

// Files in the bundle that tell how the container has ended.
const (
	ExitFile = "exit.json" // an ExitRecord
	oomFile  = "oom"       // its being there says it: CRI-O has no other way to learn of it (managers.md)
)

// ExitRecord is what ExitFile holds, as containerd's own shim 2.4 writes and reads it (contract
// 1.8): whoever cleans up after us can tell the truth.
type ExitRecord struct {
	Timestamp time.Time
	Pid       int32
	Status    int32
}

// writeExitRecord replaces exit.json in one step. It does not fsync: the bundle is on a tmpfs as
// a rule, and a crash of the machine ends the container anyway (demand.md 142).
func writeExitRecord(bundle string, pid int, exit reaper.Exit) error {
	content, err := json.Marshal(ExitRecord{Timestamp: exit.At, Pid: int32(pid), Status: int32(exit.Status)}) //nolint:gosec // below 2^22 and 256
	if err != nil {
		return fmt.Errorf("encode exit record: %w", err)
	}
	path := filepath.Join(bundle, ExitFile)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// forgetExit removes what an earlier container in the same bundle has left, or it would be taken for
// the end of the next one.
func forgetExit(bundle string) error {
	for _, name := range []string{ExitFile, oomFile} {
		if err := os.Remove(filepath.Join(bundle, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old exit record: %w", err)
		}
	}
	return nil
}

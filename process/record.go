package process

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"holdfast/internal/reaper"
)

// exitRecord is exit.json in the bundle, as containerd's own shim 2.4 writes and reads it
// (contract 1.8): whoever cleans up after us can tell the truth.
type exitRecord struct {
	Timestamp time.Time
	Pid       int
	Status    int
}

// writeExitRecord replaces exit.json in one step. It does not fsync: the bundle is on a tmpfs as
// a rule, and a crash of the machine ends the container anyway (demand.md 142).
func writeExitRecord(bundle string, pid int, exit reaper.Exit) error {
	content, err := json.Marshal(exitRecord{Timestamp: exit.At, Pid: pid, Status: exit.Status})
	if err != nil {
		return fmt.Errorf("encode exit record: %w", err)
	}
	path := filepath.Join(bundle, "exit.json")
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

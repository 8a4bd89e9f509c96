//go:build failpoints

package recorder

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pause stops at a step that HOLDFAST_FAILPOINTS names, as one of several, separated by commas:
// there a file with the step's name appears in HOLDFAST_FAILPOINTS_DIR, and pause returns when it
// has gone. At one that is named as NAME=panic it panics.
func pause(step Step) {
	name := labels[step].Name()
	points := "," + os.Getenv("HOLDFAST_FAILPOINTS") + ","
	if strings.Contains(points, ","+name+"=panic,") {
		panic("at " + name)
	}
	if !strings.Contains(points, ","+name+",") {
		return
	}
	path := filepath.Join(os.Getenv("HOLDFAST_FAILPOINTS_DIR"), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		panic(err)
	}
	for {
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

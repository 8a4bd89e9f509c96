package reaper

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The kernel's word on a process is a line "SigBlk: " and a mask in hexadecimal (proc(5)).
func TestChildrenBlockNoSignals(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Start(&Command{Path: "grep", Args: []string{"SigBlk", "/proc/self/status"}, Files: []*os.File{nil, w, nil}})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(r)
	<-c.Done()
	if got := strings.Fields(string(said)); err != nil || len(got) != 2 || strings.Trim(got[1], "0") != "" {
		t.Errorf("a child says %q, %v", said, err)
	}
}

// Which way SIGCHLD comes depends on how this was built: test/run does so both ways.
func TestDeathsComeAsTheBuildHasThem(t *testing.T) {
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, l := range links {
		to, _ := os.Readlink(l) // one that lists them is gone again
		found = found || to == "anon_inode:[signalfd]"
	}
	if tuned := os.Getenv("REAPER_TEST_TUNED") != ""; found != tuned {
		t.Errorf("there is a descriptor for SIGCHLD: %v; built with internal/tune: %v", found, tuned)
	}
}

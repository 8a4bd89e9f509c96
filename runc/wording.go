package runc

import "strings"

// wording tells a kind of failure by the words of a runtime. All of its texts are in lower case.
// begin and end must be the message's beginning and end, so that words which a container's
// program, a hook or a path brings into a message do not count; part may stand anywhere, which is
// safe only for a verb that runs nothing of the container's.
type wording struct {
	verb  string // applies to this verb only; empty: to all
	begin string
	part  string
	end   string
	kind  error
}

// wordings lists what runtimes say. testdata/messages.txt holds the full messages, and which
// version of which runtime they are from.
var wordings = []wording{
	// What containerd's shim has matched since 2019, for kill (contract 3.7).
	{verb: "kill", part: "os: process already finished", kind: ErrNotRunning},
	{verb: "kill", part: "container not running", kind: ErrNotRunning},
	{verb: "kill", part: "no such process", kind: ErrNotRunning},
	{verb: "kill", part: "pid was reused", kind: ErrNotRunning},
	{verb: "kill", part: "does not exist", kind: ErrNotFound},

	// runc
	{begin: "container does not exist", end: "container does not exist", kind: ErrNotFound},
	{begin: `container "`, end: `" does not exist`, kind: ErrNotFound},
	{begin: "container not running", end: "container not running", kind: ErrNotRunning},
	{begin: "container not running or created: stopped", end: "stopped", kind: ErrNotRunning},
	{begin: "container not running or created: paused", end: "paused", kind: ErrPaused},
	{begin: "cannot exec in a stopped container", kind: ErrNotRunning},
	{begin: "cannot exec a container that has stopped", kind: ErrNotRunning},
	{begin: "cannot start a container that has stopped", kind: ErrNotRunning},
	{begin: "container cannot be checkpointed in stopped state", kind: ErrNotRunning},
	{begin: "cannot exec in a paused container", kind: ErrPaused},
	{begin: "container not paused", end: "container not paused", kind: ErrNotPaused},
	{begin: "container with given id already exists", kind: ErrExists},
	{begin: "container with id exists: ", kind: ErrExists},

	// crun
	{begin: "error opening file `", end: "/status`: no such file or directory", kind: ErrNotFound},
	{verb: "delete", begin: "cannot open directory '", end: "': no such file or directory", kind: ErrNotFound},
	{begin: "container `", end: "` is not running", kind: ErrNotRunning},
	{begin: "the container `", end: "` is not running", kind: ErrNotRunning},
	{begin: "the container `", end: "` is not running: no such process", kind: ErrNotRunning},
	{begin: "container not running: no such process", end: "process", kind: ErrNotRunning},
	{begin: "the container `", end: "` is paused", kind: ErrPaused},
	{begin: "container `", end: "` already exists", kind: ErrExists},

	// youki
	{begin: "container ", end: " does not exist.", kind: ErrNotFound},
	{begin: "container already exists", kind: ErrExists},
}

// wrappers is what a runtime puts before its message, and may be left out.
var wrappers = []string{
	"exec failed: ", "runc create failed: ", "runc exec failed: ", "error in executing command: ",
}

// classify returns the kind of a failure of verb with this message, or nil if its words are not
// known.
func classify(verb, message string) error {
	text := strip(message)
	for i := range wordings {
		if wordings[i].matches(verb, text) {
			return wordings[i].kind
		}
	}
	return nil
}

// strip returns the message itself, in lower case.
func strip(message string) string {
	text := strings.ToLower(message)
	for _, w := range wrappers {
		text = strings.TrimPrefix(text, w)
	}
	return text
}

func (w *wording) matches(verb, text string) bool {
	return (w.verb == "" || w.verb == verb) &&
		strings.HasPrefix(text, w.begin) && strings.Contains(text, w.part) && strings.HasSuffix(text, w.end)
}

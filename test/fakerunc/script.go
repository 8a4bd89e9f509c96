package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Step is what one verb shall do.
type Step struct {
	Record string            `json:"record"` // append what this call got to this file, as a line of JSON: see Call
	Pause  string            `json:"pause"`  // stop at this point: begin, born or end
	Sleep  Duration          `json:"sleep"`  // take this long
	Stdout string            `json:"stdout"` // print this
	Stderr string            `json:"stderr"` // print this
	Log    []string          `json:"log"`    // append these lines to the --log file, as they are
	Files  map[string]string `json:"files"`  // write these; $WORK, $IMAGE and $BUNDLE stand for what the flags say
	Hook   Duration          `json:"hook"`   // leave a process behind that keeps stdout and stderr open for so long

	Error string `json:"error"` // fail as runc does: the text in the log and on stderr, exit status 1
	Real  string `json:"real"`  // run this runtime with the same arguments in place of the verb

	Child   Child  `json:"child"`   // the process of create, restore and exec
	PidFile string `json:"pidFile"` // right (also if empty), missing, garbage, late, or what to write
	Console string `json:"console"` // one (also if empty), two, none, file or never: what is sent to --console-socket

	Hang   bool `json:"hang"`   // do not end, not even on SIGTERM
	Signal int  `json:"signal"` // die of this signal
	Exit   int  `json:"exit"`   // end with this status although all went well
}

// Child is what a process does.
type Child struct {
	None   bool      `json:"none"`   // there is no process; the pid file then holds a free pid
	Life   *Duration `json:"life"`   // end after so long; absent: live until killed
	Exit   int       `json:"exit"`   // end with this status
	Signal int       `json:"signal"` // end by this signal
	Early  bool      `json:"early"`  // an init lives without waiting for start
	Dead   bool      `json:"dead"`   // the runtime goes on only when the process is dead; implies early
	Deaf   bool      `json:"deaf"`   // SIGKILL is the only signal it heeds
	Output string    `json:"output"` // print this first
	Echo   bool      `json:"echo"`   // copy stdin to stdout, and end when it ends
	Linger Duration  `json:"linger"` // at its end leave a process that keeps its descriptors open for so long
}

// Call is what Step.Record writes.
type Call struct {
	Verb    string      `json:"verb"`
	Args    []string    `json:"args"` // all of them
	Env     []string    `json:"env"`
	Dir     string      `json:"dir"`
	Process string      `json:"process,omitempty"` // content of the --process file
	Mode    fs.FileMode `json:"mode,omitempty"`    // of that file
	Stdin   string      `json:"stdin,omitempty"`   // of update
}

// Duration is a time.Duration that is written as a string.
type Duration time.Duration

// UnmarshalJSON reads what time.ParseDuration does.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalJSON writes what UnmarshalJSON reads.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

const scriptName = "fakerunc.json"

// readStep returns the step for a verb, and for one exec if name is its id.
func readStep(verb, name string) (Step, error) {
	content, err := os.ReadFile(scriptName)
	if errors.Is(err, fs.ErrNotExist) {
		return Step{}, nil
	}
	if err != nil {
		return Step{}, err
	}
	var script map[string]Step
	if err := json.Unmarshal(content, &script); err != nil {
		return Step{}, fmt.Errorf("%s: %w", scriptName, err)
	}
	for _, key := range []string{verb + "/" + name, verb, "*"} {
		if step, ok := script[key]; ok {
			return step, nil
		}
	}
	return Step{}, nil
}

package runc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"holdfast/internal/bundle"
	"holdfast/internal/reaper"
)

const (
	logName = "log.json" // in the bundle: what failed, for people (contract 1.8)
	// logLimit bounds log.json, which lies in memory (/run): a probe that fails every second for
	// a year must not fill it. Beyond that it begins anew.
	logLimit = 1 << 20
)

// callLog is where one command writes its log. Each has a file of its own, so that commands that
// run at the same time never get to see each other's errors, nor a killed one an earlier one's.
type callLog struct {
	path  string
	dir   string     // the bundle, if the file is to be merged into log.json; else empty
	spare *spareLogs // where the file goes if the command did not fail; nil: nowhere
}

// spareLogs are files of execs that did not fail, for the next ones: to make one and to remove it takes the
// shim a twentieth of an exec. The zero value has none.
type spareLogs struct {
	mu    sync.Mutex
	paths []string
}

// maxSpare is how many are kept; more execs than that run at once on large machines only.
const maxSpare = 8

// give keeps a file, or removes it if there are enough.
func (s *spareLogs) give(path string) {
	if !s.push(path) {
		_ = bundle.Remove(path) // goes with the bundle at the latest
	}
}

// take returns a file that is there and empty, or "".
func (s *spareLogs) take() string {
	for {
		path := s.pop()
		if path == "" {
			return ""
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 {
			return path
		}
		_ = bundle.Remove(path) // goes with the bundle at the latest
	}
}

// drop removes all.
func (s *spareLogs) drop() {
	for path := s.pop(); path != ""; path = s.pop() {
		_ = bundle.Remove(path) // goes with the bundle at the latest
	}
}

func (s *spareLogs) push(path string) (kept bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.paths) == maxSpare {
		return false
	}
	s.paths = append(s.paths, path)
	return true
}

func (s *spareLogs) pop() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.paths) == 0 {
		return ""
	}
	last := len(s.paths) - 1
	path := s.paths[last]
	s.paths = s.paths[:last]
	return path
}

// openLog chooses the file for c's log. A command must run even where no file can be made (the
// disk is full, the bundle gone); it then logs to nowhere, and its standard error has to do.
func (r *Runtime) openLog(c command) callLog {
	if c.bare {
		return callLog{path: os.DevNull}
	}
	if c.verb == "create" || c.verb == "restore" {
		path := filepath.Join(r.Bundle, logName)
		if err := os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			return callLog{path: path}
		}
	}
	var spare *spareLogs
	if c.verb == "exec" {
		spare = &r.spare
		if path := spare.take(); path != "" {
			return callLog{path: path, dir: r.Bundle, spare: spare}
		}
	}
	name := fmt.Sprintf(".%s-%d-%d.%s", c.verb, os.Getpid(), logs.Add(1), logName)
	path := filepath.Join(r.Bundle, name)
	if err := bundle.Make(path, nil, 0o600); err != nil {
		return callLog{path: os.DevNull}
	}
	return callLog{path: path, dir: r.Bundle, spare: spare}
}

// logs counts them, for their names: the delete action of the same container may run beside us.
var logs atomic.Uint64

// close removes the file, after adding what it says to log.json if the command failed, or keeps it for another
// command. What cannot be kept is lost: the answer to the caller holds the line that matters.
func (l callLog) close(failed bool) {
	switch {
	case l.dir == "":
		return
	case l.spare != nil && !failed:
		l.spare.give(l.path)
		return
	}
	if failed {
		if content, err := l.read(); err == nil && len(content) > 0 {
			_ = appendLimited(filepath.Join(l.dir, logName), content)
		}
	}
	_ = bundle.Remove(l.path)
}

func (l callLog) read() ([]byte, error) {
	if l.path == os.DevNull {
		return nil, nil
	}
	f, err := bundle.Open(l.path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return readTail(f, logLimit/2)
}

// appendLimited adds content to the end of a file, or to a new beginning if it is full. It follows
// no link that somebody has put there, nor waits for the reader of a FIFO.
func appendLimited(path string, content []byte) error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0o644) //nolint:gosec // the mode runc gives it (contract 1.8)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil && info.Size()+int64(len(content)) > logLimit {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.Write(content)
	}
	return errors.Join(err, f.Close())
}

// reason returns why a command failed: the last error of its log, else what it wrote to standard
// error if that went to out, else how it ended.
func reason(log callLog, out *buffer, exit reaper.Exit) string {
	content, logErr := log.read()
	if msg := lastError(content); msg != "" {
		return msg
	}
	if out != nil {
		words, _ := out.tail(capLimit) // it can always be read; if not, there is still the exit
		if s := strings.TrimSpace(string(words)); s != "" {
			return s
		}
	}
	if logErr != nil {
		return fmt.Sprintf("unable to retrieve OCI runtime error (%v): %s", logErr, exitText(exit))
	}
	return exitText(exit)
}

func exitText(exit reaper.Exit) string {
	if exit.Signal == 0 {
		return fmt.Sprintf("exit status %d", exit.Status)
	}
	if exit.Signal == unix.SIGKILL {
		return "signal: killed (by somebody else, or for want of memory)"
	}
	return fmt.Sprintf("signal: %v", exit.Signal)
}

// logEntry is a line of a runtime's log. runc and crun call the text msg; youki calls it message
// and writes the level in capitals, its older versions put the text under fields.
type logEntry struct {
	Level   string
	Msg     string
	Message string
	Fields  struct{ Message string }
}

// lastError returns the text of the last error in a log, or "". Lines that are not JSON, or not
// of the expected form, are passed over; several objects may share a line.
func lastError(content []byte) string {
	var last string
	for line := range bytes.Lines(content) {
		dec := json.NewDecoder(bytes.NewReader(line))
		for {
			var e logEntry
			var mistyped *json.UnmarshalTypeError // the other fields have been decoded
			if err := dec.Decode(&e); err != nil && !errors.As(err, &mistyped) {
				break // end of the line, or not JSON
			}
			if text := e.text(); text != "" {
				last = text
			}
		}
	}
	return last
}

// text returns what went wrong, or "" if the entry is not an error.
func (e *logEntry) text() string {
	switch strings.ToLower(e.Level) {
	case "error", "fatal", "panic":
	default:
		return ""
	}
	for _, s := range []string{e.Msg, e.Message, e.Fields.Message} {
		if s = strings.TrimSpace(s); s != "" {
			return s
		}
	}
	return ""
}

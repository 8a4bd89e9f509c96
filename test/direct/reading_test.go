package direct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/client"
)

const (
	// slowly is how long a slow reader rests before each chunk.
	slowly = time.Millisecond
	// What a process may write although nobody reads. What comes from a terminal fills the 16 pages of
	// a pipe worse: two pieces that do not fit into one page together take a page each (pipe_write in fs/pipe.c).
	fitsPipe     = 64 << 10
	fitsTerminal = fitsPipe / 2
)

// waits tells whether a late reader comes only after the exit: what the process says fits into its FIFO.
func (r round) waits() bool {
	return r.read == late && (r.size <= fitsTerminal || r.size <= fitsPipe && !r.terminal)
}

// ends is the client's side of one round.
type ends struct {
	given  client.IO // for the request, if it is not fifos
	fifos  *client.IO
	check  *check
	logDir string
}

// open makes the client's side, and reads already unless the reader is late.
func (e *ending) open(r round) (*ends, error) {
	s := &ends{check: &check{want: e.content[:r.size]}}
	if r.read == slow {
		s.check.pace = slowly
	}
	path := filepath.Join(e.dir, "log-"+r.id)
	switch r.scheme {
	case "file":
		s.given = client.IO{Stdout: "file://" + path, Stderr: "file://" + path}
		return s, nil
	case "binary":
		uri, err := e.loggerURI(r.scheme, path, s.check.pace)
		s.logDir, s.given = path, client.IO{Stdout: uri, Stderr: uri}
		return s, err
	}
	if r.read == late {
		// Not opened and closed again: a child that we start would have it open for a while.
		err := s.name(e, r)
		return s, err
	}
	err := s.read(e, r)
	return s, err
}

// name makes the FIFOs for a late reader.
func (s *ends) name(e *ending, r round) error {
	s.given = client.IO{Stdout: filepath.Join(e.dir, r.id+"-stdout"), Terminal: r.terminal}
	if err := unix.Mkfifo(s.given.Stdout, 0o600); err != nil || r.terminal {
		return err
	}
	s.given.Stderr = filepath.Join(e.dir, r.id+"-stderr")
	return unix.Mkfifo(s.given.Stderr, 0o600)
}

// read opens the FIFOs.
func (s *ends) read(e *ending, r round) (err error) {
	s.fifos, err = client.OpenIO(e.dir, r.id, client.IOConfig{Stdout: s.check, Terminal: r.terminal, Forget: true})
	return err
}

// Close lets go of what is open.
func (s *ends) Close() {
	if s.fifos != nil {
		s.fifos.Close()
	}
}

func (s *ends) io() *client.IO {
	if s.fifos != nil {
		return s.fifos
	}
	return &s.given
}

// afterStart lets a late reader come while the process is kept waiting.
func (s *ends) afterStart(e *ending, r round) error {
	if r.scheme != "fifo" || r.read != late || r.waits() {
		return nil
	}
	return s.read(e, r)
}

// afterExit waits for the end of the stream and checks what has arrived.
func (s *ends) afterExit(e *ending, r round) error {
	if r.scheme == "file" {
		return checkFile(filepath.Join(e.dir, "log-"+r.id), s.check.want)
	}
	if r.scheme != "fifo" {
		return nil
	}
	if r.waits() {
		if err := s.read(e, r); err != nil {
			return err
		}
	}
	if err := s.fifos.Drained(e.long); err != nil {
		return fmt.Errorf("%w; %d bytes have not arrived; the shim holds %q", err, s.check.left(), e.held(r.id))
	}
	err := errors.Join(s.check.done(), os.Remove(s.fifos.Stdout))
	if r.terminal {
		return err
	}
	return errors.Join(err, os.Remove(s.fifos.Stderr))
}

// held returns which FIFOs of a process the shim still has open.
func (e *ending) held(id string) []string {
	var held []string
	for _, link := range e.census().Links {
		if strings.Contains(link, "/"+id+"-") {
			held = append(held, link)
		}
	}
	return held
}

// afterDelete checks what a logger has written down. The deletion has waited for its end.
func (s *ends) afterDelete(_ *ending, r round) error {
	if s.logDir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.logDir, "end")); err != nil {
		failure, _ := os.ReadFile(filepath.Join(s.logDir, "failed"))
		return fmt.Errorf("the logger has not seen the ends: %w; it says %q", err, failure)
	}
	return checkFile(filepath.Join(s.logDir, "stdout"), s.check.want)
}

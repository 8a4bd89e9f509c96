package direct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"holdfast/internal/client"
)

const (
	// slowly is how long a slow reader rests before each chunk.
	slowly = time.Millisecond
	// fitsPipe is what a process may write although nobody reads.
	fitsPipe = 64 << 10
)

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
	if err := s.read(e, r); err != nil {
		return nil, err
	}
	if r.read == late {
		s.fifos.Close()
	}
	return s, nil
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
	if s.fifos == nil || r.read != late || r.size <= fitsPipe {
		return nil
	}
	return s.read(e, r)
}

// afterExit waits for the end of the stream and checks what has arrived.
func (s *ends) afterExit(e *ending, r round) error {
	if r.scheme == "file" {
		return checkFile(filepath.Join(e.dir, "log-"+r.id), s.check.want)
	}
	if s.fifos == nil {
		return nil
	}
	if r.read == late && r.size <= fitsPipe {
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

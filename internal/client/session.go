package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
)

// shutdownLimit is how long a shim may take to end. Containerd gives the call three seconds; a
// shim may spend up to five on events that are still queued (contract sections 1.7, 11.4).
const shutdownLimit = 8 * time.Second

// ErrWarning means that the delete action succeeded but wrote to standard error.
var ErrWarning = errors.New("the delete action warns")

// Session is a shim that was started for a bundle, with everything that a manager keeps beside it.
type Session struct {
	*Shim

	Config StartConfig                // as completed by Launch
	Result *bootstrap.BootstrapResult // what the shim answered to start
	Events *Events                    // nil if Config named the address of another server
	Log    *Log
	Times  Times

	pid     int
	process *Process // the shim; nil once closed
}

// Times tells how long a shim took to be there.
type Times struct {
	Began    time.Time // the start action was run
	Answered time.Time // it had answered, and ended
	Reached  time.Time // the first call was answered
}

// Launch does what a manager does before its first call: it serves events, makes the log FIFO of
// the bundle, starts the shim and connects to it in the version it asked for. dir is a directory
// for the sockets; its path must be short, see unix(7). In cfg the addresses may be left empty,
// and so may Namespace. log, if not nil, gets the shim's log. The caller calls End.
func Launch(ctx context.Context, dir string, cfg StartConfig, log io.Writer) (*Session, error) {
	s := &Session{Config: cfg}
	if s.Config.Namespace == "" {
		s.Config.Namespace = DefaultNamespace
	}
	if s.Config.Address == "" {
		// Nobody serves it, but it is part of the name of the shim's socket.
		s.Config.Address = filepath.Join(dir, "manager.sock")
	}
	if err := s.open(ctx, dir, log); err != nil {
		if s.Shim != nil {
			// It was started, and nobody else knows of it.
			_, endErr := s.End(context.WithoutCancel(ctx))
			err = errors.Join(err, endErr)
		}
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) open(ctx context.Context, dir string, log io.Writer) (err error) {
	if s.Config.TTRPCAddress == "" {
		s.Config.TTRPCAddress = filepath.Join(dir, "events.sock")
		if s.Events, err = ListenEvents(s.Config.TTRPCAddress); err != nil {
			return err
		}
	}
	if s.Log, err = OpenLog(s.Config.Bundle, log); err != nil {
		return err
	}
	s.Times.Began = time.Now()
	if s.Result, err = Start(ctx, s.Config); err != nil {
		return err
	}
	s.Times.Answered = time.Now()
	if s.Shim, err = Dial(ctx, s.Result.Address); err != nil {
		return err
	}
	s.Namespace = s.Config.Namespace
	s.Version = int(s.Result.Version)
	return s.identify(ctx)
}

// identify gets hold of the process that serves the connection.
func (s *Session) identify(ctx context.Context) error {
	first, err := s.Connect(ctx, &task.ConnectRequest{ID: s.Config.ID})
	if err != nil {
		return err
	}
	s.Times.Reached = time.Now()
	s.pid = int(first.ShimPid)
	if s.process, err = OpenProcess(s.pid); err != nil {
		return err
	}
	// The process found is the shim if the shim is still there: its pid cannot have been given to
	// another in between.
	_, err = s.Connect(ctx, &task.ConnectRequest{ID: s.Config.ID})
	return err
}

// Pid returns the pid of the shim.
func (s *Session) Pid() int { return s.pid }

// End does what a manager does after the last call, or instead of further calls: Shutdown, hang
// up once the shim has, run the delete action; then it waits for the end of the shim, which may
// still have events to send, and does Close. It does as much as it can; the error joins whatever
// went wrong, ErrWarning included.
//
// A shim that still has containers ignores Shutdown. It is an error if the shim has not ended
// after a few seconds; End then kills it, so that nothing is left in any case.
func (s *Session) End(ctx context.Context) (*task.DeleteResponse, error) {
	defer s.Close()
	failure := s.shutdown(ctx)
	if failure != nil {
		failure = errors.Join(failure, s.kill(ctx))
	}
	response, warning, err := Delete(ctx, s.Config)
	if err == nil && warning != "" {
		err = fmt.Errorf("end %s: %w: %s", s.Config.ID, ErrWarning, strings.TrimSpace(warning))
	}
	if failure == nil {
		failure = s.ended(ctx)
	}
	return response, errors.Join(failure, err)
}

// shutdown returns once the shim has hung up, and hangs up too. The shim's answer may be lost when
// it ends quickly (contract section 1.7), so that is no error.
func (s *Session) shutdown(ctx context.Context) error {
	defer s.Shim.Close()
	ctx, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	_, err := s.Shutdown(ctx, &task.ShutdownRequest{ID: s.Config.ID})
	select {
	case <-s.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shut shim down: %w", errors.Join(ctx.Err(), err))
	}
}

// ended waits for a shim that has hung up, and kills it if it does not end.
func (s *Session) ended(ctx context.Context) error {
	if s.process == nil {
		return nil // it was never known: Launch has failed early
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	if err := s.process.Wait(ctx); err != nil {
		return fmt.Errorf("end shim: %w", errors.Join(err, s.process.Kill()))
	}
	return nil
}

// Crash kills the shim with SIGKILL and runs the delete action, as a manager does when a shim has
// died on it; then Close. It returns what the action answered and its warnings.
func (s *Session) Crash(ctx context.Context) (*task.DeleteResponse, string, error) {
	defer s.Close()
	if err := s.kill(ctx); err != nil {
		return nil, "", fmt.Errorf("kill shim of %s: %w", s.Config.ID, err)
	}
	return Delete(ctx, s.Config)
}

// kill returns once the shim has died, or had done so before.
func (s *Session) kill(ctx context.Context) error {
	if s.process == nil {
		return errors.New("its process is not known: the session has been closed, or could not be opened")
	}
	if err := s.process.Kill(); err != nil {
		return err
	}
	return s.process.Wait(ctx)
}

// Close hangs up and frees what the session holds, without a word to the shim, which lives on.
// Nothing but Pid, Events.All, Log.String and further calls of Close are of use afterwards.
func (s *Session) Close() {
	if s.Shim != nil {
		s.Shim.Close()
	}
	if s.process != nil {
		s.process.Close()
		s.process = nil
	}
	if s.Log != nil {
		s.Log.Close()
	}
	if s.Events != nil {
		s.Events.Close()
	}
}

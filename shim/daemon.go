package shim

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
	"holdfast/internal/recorder"
)

const (
	// flushLimit bounds how long events may wait for the manager after the last container.
	flushLimit = 5 * time.Second
	// answerLimit bounds how long answers may take to be written after Shutdown.
	answerLimit = 2 * time.Second
)

// serve is the life of the daemon: it builds the parts, serves until it is told to end, and takes
// the parts down in reverse.
func serve(ctx context.Context, p DaemonParams) error {
	log, logFile, err := OpenLog(p.Bundle, p.Debug)
	if err != nil {
		return errors.Join(err, p.RemoveSocket())
	}
	crashes, err := catchCrashes(p.Bundle)
	if err != nil {
		log.Warn("a crash will leave no trace", "err", err)
		crashes = func() {}
	}
	slog.SetDefault(log) // for ttrpc, which has no logger of its own
	signals := make(chan os.Signal, 16)
	// SIGPIPE is caught so that a log nobody reads does not kill us (contract T10), SIGHUP because
	// no terminal that hangs up is ours.
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGPIPE, unix.SIGHUP, unix.SIGUSR1)
	if err := reaper.Init(); err != nil {
		return errors.Join(err, p.RemoveSocket())
	}
	events := NewEventLog(p.TTRPCAddress, p.Namespace, log)
	steps := new(recorder.Recorder)
	service := NewService(p.Namespace, events, log, steps)
	service.Inhabit(p.Bundle)
	server, err := newServer(service, events, log)
	if err != nil {
		return errors.Join(err, p.RemoveSocket())
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, p.Listener) }() // ends with Shutdown of server
	log.Info("shim serves", "group", p.Group, "pid", os.Getpid())
	err = await(signals, service.Stopped(), served, log, steps)
	steps.Reach(recorder.ShutdownBegun, "", "")
	takeDown(p, server, events, log, steps)
	crashes() // not deferred: a panic on its way out has not been written yet
	return errors.Join(err, logFile.Close())
}

func newServer(service *Service, events *EventLog, log *slog.Logger) (*ttrpc.Server, error) {
	looks := newInspector(service, events)
	gather := func() {
		events.gather()
		service.steps.Gather()
		reaper.Forking() // forgets those that are over, of which the last second before the rest may hold a hundred
	}
	server, err := ttrpc.NewServer(
		ttrpc.WithServerHandshaker(greeter{service: service, visited: events.Visited}),
		ttrpc.WithUnaryServerInterceptor(edge(log, service.steps, newTidier(gather), looks.requests)),
	)
	if err != nil {
		return nil, err
	}
	service.Register(server)
	looks.register(server)
	return server, nil
}

// await returns when the shim is to end: the manager asked, or a signal, or the socket broke.
func await(
	signals <-chan os.Signal, stopped <-chan struct{}, served <-chan error, log *slog.Logger,
	steps *recorder.Recorder,
) error {
	for {
		select {
		case <-stopped:
			return nil
		case err := <-served:
			return err
		case sig := <-signals:
			switch sig {
			case unix.SIGTERM, unix.SIGINT:
				// Also with containers, or the shutdown of the host would hang (contract T12).
				log.Info("shim ends by signal", "signal", sig.String())
				return nil
			case unix.SIGUSR1:
				log.Info("stacks", "stacks", stacks(), "steps", steps.String())
			}
		}
	}
}

func stacks() string {
	buf := make([]byte, 256<<10)
	return string(buf[:runtime.Stack(buf, true)])
}

// takeDown removes the socket first, so that a start sees either a daemon that answers or none;
// then the answers under way are finished and the events flushed.
func takeDown(p DaemonParams, server *ttrpc.Server, events *EventLog, log *slog.Logger, steps *recorder.Recorder) {
	if err := p.RemoveSocket(); err != nil {
		log.Error("socket not removed", "err", err)
	}
	steps.Reach(recorder.ShutdownHidden, "", "")
	events.part()
	answers, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	if err := server.Shutdown(answers); err != nil {
		log.Debug("requests cut off", "err", err)
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			log.Debug("server not closed", "err", err)
		}
	}
	steps.Reach(recorder.ShutdownServed, "", "")
	flush, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	lost := events.Close(flush)
	steps.Reach(recorder.ShutdownFlushed, "", "")
	log.Info("shim ends", "group", p.Group, "lost", lost)
}

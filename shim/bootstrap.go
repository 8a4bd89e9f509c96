package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/api"
	"holdfast/internal/bundle"
	"holdfast/internal/wire"
)

const (
	addressFile   = "address" // in the bundle, how managers up to 1.7 and CRI-O find us again
	addressScheme = "unix://"
	// claimLimit bounds how long start waits for a daemon that is on its way out.
	claimLimit = 3 * time.Second
	claimPause = 5 * time.Millisecond
)

// starter is one run of the action start.
type starter struct {
	*call
	params Params
	bundle string
	group  string
	socket string
	log    *slog.Logger
}

// start finds or starts the daemon for a container and answers with its address (contract 1.6).
//
// The order is: claim the socket, write the address into the bundle, fork the daemon, answer,
// release the daemon. Killed at any point start leaves at most a dead socket, which the next one
// replaces: a daemon that is not released ends by itself.
func start(ctx context.Context, c *call) error {
	p, err := readParams(c.flags, c.env, c.stdin)
	if err != nil {
		return err
	}
	bundle, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the bundle: %w", err)
	}
	notes, err := readAnnotations(bundle)
	if err != nil {
		return err
	}
	log, closer := openLog(bundle, p.Debug)
	defer closer.Close() //nolint:errcheck // lines are written whole or dropped, never buffered
	group := notes.key(p.ID)
	s := &starter{
		call: c, params: p, bundle: bundle, group: group, log: log.With("task", p.ID),
		socket: SocketPath(p.SocketDir, p.Address, p.Namespace, group),
	}
	s.report()
	return s.run(ctx)
}

// report logs what start was given and did not use.
func (s *starter) report() {
	if len(s.unknown) > 0 {
		s.log.Debug("unknown flags ignored", "flags", strings.Join(s.unknown, " "))
	}
	if s.params.Ignored != "" {
		s.log.Warn("options ignored until the task is created", "err", s.params.Ignored)
	}
}

func (s *starter) run(ctx context.Context) error {
	l, version, err := s.claim(ctx)
	if err != nil {
		return err
	}
	if l == nil {
		s.log.Debug("joined the daemon of the group", "group", s.group)
		if err := s.writeAddress(); err != nil {
			return err
		}
		return s.answer(version)
	}
	if err := s.launch(l); err != nil {
		return errors.Join(err, l.at.remove(), l.Close())
	}
	return nil
}

// claim returns the listener for a new daemon, or nil and the version of the task API that the
// daemon speaks which has the socket already.
func (s *starter) claim(ctx context.Context) (*listener, int32, error) {
	for end := time.Now().Add(claimLimit); ; {
		l, err := listen(s.socket)
		if !errors.Is(err, errTaken) {
			return l, 0, err
		}
		version, err := probe(ctx, s.socket, s.params.ID)
		if !errors.Is(err, errGone) || time.Now().After(end) {
			return nil, version, err
		}
		<-time.After(claimPause)
	}
}

// writeAddress tells managers that come back after a restart where the daemon is. It is done before
// there is a daemon, so that none can be forgotten (contract T4).
func (s *starter) writeAddress() error {
	path := filepath.Join(s.bundle, addressFile)
	if err := bundle.Replace(path, []byte(addressScheme+s.socket), 0o644); err != nil {
		return fmt.Errorf("write the shim's address: %w", err)
	}
	return nil
}

// launch starts the daemon and answers. If it fails there is no daemon.
func (s *starter) launch(l *listener) error {
	if err := s.writeAddress(); err != nil {
		return err
	}
	// The cookie of core scheduling belongs to threads; the fork has to come from one that has it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := s.prepare(); err != nil {
		return err
	}
	pid, release, err := s.fork(l)
	if err != nil {
		return err
	}
	err = s.answer(newestVersion)
	if err == nil {
		_, err = unix.Write(release, []byte{0})
	}
	if err := errors.Join(err, unix.Close(release)); err != nil {
		// Nobody waits for the daemon before we end, so the pid is its own.
		return errors.Join(fmt.Errorf("hand over to the daemon: %w", err), unix.Kill(pid, unix.SIGKILL))
	}
	return nil
}

// prepare sets what the daemon inherits from us.
func (s *starter) prepare() error {
	if err := raiseOOMScore(); err != nil {
		return err
	}
	if path := s.params.Options.GetShimCgroup(); path != "" {
		if err := joinCgroup(path); err != nil {
			return err
		}
	}
	if lookup(s.env, "SCHED_CORE") != "" {
		return newSchedCore()
	}
	return nil
}

// fork starts the daemon, which does nothing until a byte is written to release, and ends if
// release is closed without one.
//
// os.StartProcess would do, and os.Pipe; but they prepare for much that start does not need, with some
// thirty calls of the kernel and a process to try whether there are pidfds.
func (s *starter) fork(l *listener) (pid, release int, err error) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer unix.Close(null) //nolint:errcheck // nothing was written
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, 0, fmt.Errorf("make a pipe to the daemon: %w", err)
	}
	held, release := pipe[0], pipe[1]
	defer unix.Close(held) //nolint:errcheck // nothing was written
	path, name, err := self(s.binary)
	if err == nil {
		pid, err = syscall.ForkExec(path, s.daemonArgs(name), &syscall.ProcAttr{
			Dir:   s.bundle,
			Env:   s.daemonEnv(),
			Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), l.Fd(), uintptr(held)},
			Sys:   &syscall.SysProcAttr{Setpgid: true},
		})
	}
	if err != nil {
		return 0, 0, errors.Join(fmt.Errorf("start the daemon: %w", err), unix.Close(release))
	}
	return pid, release, nil
}

// self returns the file we are run from, and the name to show for it. If the file has been replaced
// meanwhile the kernel's link still leads to ours: start and daemon must be of one version.
func self(argv0 string) (path, name string, err error) {
	path, err = os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("find our own binary: %w", err)
	}
	name = path
	if filepath.IsAbs(argv0) {
		name = argv0 // as the manager calls us; a link to path perhaps
	}
	const link = "/proc/self/exe"
	ours, err := os.Stat(link)
	if err != nil {
		return "", "", fmt.Errorf("find our own binary: %w", err)
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, ours) {
		path = link
	}
	return path, name, nil
}

// daemonArgs are those of containerd's own shims, so that ps and scripts around it find ours.
func (s *starter) daemonArgs(name string) []string {
	args := []string{name, "-namespace", s.params.Namespace, "-id", s.params.ID, "-address", s.params.Address}
	if s.params.Debug {
		args = append(args, "-debug")
	}
	return args
}

// answer writes the reply in the form in which we were asked (contract 1.4).
func (s *starter) answer(version int32) error {
	reply := []byte(addressScheme + s.socket)
	if s.params.NewProtocol {
		reply = encodeResult(version, addressScheme+s.socket, s.binary)
	}
	if _, err := s.stdout.Write(reply); err != nil {
		return fmt.Errorf("answer on stdout: %w", err)
	}
	return nil
}

// encodeResult returns the answer of the new protocol. Its last byte is never a blank: containerd
// 2.3.0 to 2.3.3 would trim it off (demand.md 78). Fields are written by ascending number, so the
// answer ends in the name of the protocol or of the extension.
func encodeResult(version int32, address, binary string) []byte {
	result := &api.BootstrapResult{Version: version, Address: address, Protocol: "ttrpc"}
	if !isRuncName(binary) {
		// An empty claim saves the manager a run of -info per container, as it would do for runtimes
		// that it does not know by name.
		none := &api.Any{TypeUrl: (*api.MountCapabilities)(nil).MessageName()}
		result.Extensions = []*api.Extension{{Value: none}}
	}
	return wire.Marshal(result)
}

// isRuncName tells whether the binary is installed in the place of containerd's runc shim.
func isRuncName(binary string) bool {
	return strings.HasPrefix(filepath.Base(binary), "containerd-shim-runc-")
}

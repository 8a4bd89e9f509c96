package runc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// consoleWait is how long a runtime that has ended well may take to be heard of on its console
// socket. What it sent before its end is there at once; this is for runtimes that have a daemon
// of their own.
const consoleWait = 5 * time.Second

// consoleSocket is the unix socket by which a runtime hands over the master of the pty that it
// has made for the container (runc's docs/terminals.md).
//
// The socket lies in the bundle, whose path is in Kubernetes too long for a socket address (108
// bytes, unix(7)). So it is named through our descriptor of the bundle: /proc/<pid>/fd/<n>/….
// That name is absolute and means the same to us, to the runtime and to what it starts.
type consoleSocket struct {
	bundle   int // descriptor of the directory
	name     string
	path     string
	listener *net.UnixListener
}

func listenConsole(bundle string) (*consoleSocket, error) {
	dir, err := unix.Open(bundle, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", bundle, err)
	}
	// The number of an open descriptor is nobody else's; a file of this name is a dead shim's.
	s := &consoleSocket{bundle: dir, name: fmt.Sprintf("console-%d.sock", dir)}
	self, err := os.Readlink("/proc/self") // our pid as that /proc numbers it
	if err != nil {
		s.close()
		return nil, fmt.Errorf("find ourselves in /proc: %w", err)
	}
	s.path = fmt.Sprintf("/proc/%s/fd/%d/%s", self, dir, s.name)
	if err := unix.Unlinkat(dir, s.name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		s.close()
		return nil, fmt.Errorf("remove old console socket %s: %w", s.name, err)
	}
	s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("listen on console socket: %w", err)
	}
	s.listener.SetUnlinkOnClose(false) // close does it, by descriptor
	if err := unix.Fchmodat(dir, s.name, 0o600, 0); err != nil {
		s.close()
		return nil, fmt.Errorf("make console socket private: %w", err)
	}
	return s, nil
}

// close removes the socket.
func (s *consoleSocket) close() {
	if s.listener != nil {
		_ = s.listener.Close()
		_ = unix.Unlinkat(s.bundle, s.name, 0)
	}
	_ = unix.Close(s.bundle)
}

// receive returns the master that a runtime which has ended well sent, in non-blocking mode and
// known to the poller, so that a read of it can be interrupted. It is the caller's.
func (s *consoleSocket) receive(ctx context.Context) (*os.File, error) {
	limit := time.Now().Add(consoleWait)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	if err := s.listener.SetDeadline(limit); err != nil {
		return nil, fmt.Errorf("limit the wait for the console: %w", err)
	}
	conn, err := s.listener.AcceptUnix()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errors.New("the runtime ended without connecting to its console socket; it must when process.terminal is true")
	}
	if err != nil {
		return nil, fmt.Errorf("accept on console socket: %w", err)
	}
	defer conn.Close() //nolint:errcheck // only read
	if err := conn.SetDeadline(limit); err != nil {
		return nil, fmt.Errorf("limit the wait for the console: %w", err)
	}
	fds, err := receiveDescriptors(conn)
	if err != nil {
		return nil, err
	}
	return takeMaster(fds)
}

// receiveDescriptors reads one message, whose text is the name of the terminal and of no use, and
// returns the descriptors that came with it, close-on-exec.
func receiveDescriptors(conn *net.UnixConn) ([]int, error) {
	text := make([]byte, 4096)
	control := make([]byte, unix.CmsgSpace(8*4)) // the kernel closes those that do not fit
	_, n, _, _, err := conn.ReadMsgUnix(text, control)
	if err != nil {
		return nil, fmt.Errorf("read from console socket: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return nil, fmt.Errorf("read from console socket: %w", err)
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // a message of another kind
		}
		all = append(all, fds...)
	}
	return all, nil
}

// takeMaster makes the first of fds the master, if it is one, and closes the others.
func takeMaster(fds []int) (*os.File, error) {
	if len(fds) == 0 {
		return nil, errors.New("the runtime connected to its console socket but sent no descriptor; it must send the pty's master")
	}
	for _, fd := range fds[1:] {
		_ = unix.Close(fd)
	}
	master := fds[0]
	// Only a master has a number to give (ioctl_tty(2), TIOCGPTN).
	if _, err := unix.IoctlGetInt(master, unix.TIOCGPTN); err != nil {
		_ = unix.Close(master)
		return nil, fmt.Errorf("what the runtime sent as the pty's master is none: %w", err)
	}
	if err := unix.SetNonblock(master, true); err != nil {
		_ = unix.Close(master)
		return nil, fmt.Errorf("make the console non-blocking: %w", err)
	}
	return os.NewFile(uintptr(master), "/dev/ptmx"), nil
}

package shim

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/sha256"
)

const (
	// defaultSocketDir is where every manager looks for sockets unless it says otherwise.
	defaultSocketDir = "/run/containerd/s"
	// maxSocketPath is what sun_path of unix(7) holds, less a zero byte and one to spare, as in
	// containerd.
	maxSocketPath = 106
	// lockLimit bounds the wait for other starts in the same directory, which hold the lock for
	// three system calls.
	lockLimit = 3 * time.Second
)

// errTaken says that a daemon listens on the socket already.
var errTaken = errors.New("another daemon listens there")

// SocketPath returns the path of the socket on which the daemon of a group listens. Managers and
// containerd's tests compute the same (contract 1.6.3). An empty dir stands for the default.
func SocketPath(dir, grpcAddress, namespace, group string) string {
	if dir == "" {
		dir = defaultSocketDir
	}
	sum := sha256.Sum([]byte(filepath.Join(grpcAddress, namespace, group)))
	return filepath.Join(dir, hex.EncodeToString(sum[:]))
}

// listener is a listening socket and the file under which it is reached.
type listener struct {
	*os.File
	at socketFile
}

// listen claims path: it returns a listening socket under that name, mode 0600, or errTaken if
// somebody listens there. A socket that nobody listens on is replaced. Of several callers at a
// time exactly one gets the socket.
//
// The directory is made if it is missing. Its lock is held from bind to listen and while a dead
// socket is replaced, since in between a socket cannot be told from a dead one.
func listen(path string) (*listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on %s: the path has %d bytes, the limit is %d; choose a shorter socket directory",
			path, len(path), maxSocketPath)
	}
	if err := makeSocketDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := bind(path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	switch dead, err := isDead(path); {
	case err != nil:
		return nil, err
	case !dead:
		return nil, fmt.Errorf("listen on %s: %w", path, errTaken)
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove dead socket %s: %w", path, err)
	}
	return bind(path)
}

// bind makes a socket under path and listens on it. Nobody can connect before its mode is right.
func bind(path string) (*listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind %s: %w", path, err), f.Close())
	}
	at, err := identify(path)
	if err == nil {
		err = unix.Chmod(path, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), unix.Unlink(path), f.Close())
	}
	return &listener{File: f, at: at}, nil
}

// makeSocketDir makes dir for its owner alone. An existing one is left as it is, but it must
// belong to us or to root: whoever owns it can put another socket in the place of ours.
func makeSocketDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the socket directory: %w; choose one of your own", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("cannot use the socket directory %s: %w", dir, err)
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("cannot use the socket directory %s: it belongs to uid %d, who could exchange sockets; choose one of your own",
			dir, uid)
	}
	return nil
}

// lockDir takes the lock that callers of listen and remove share. It is let go when the process
// ends, whichever way.
func lockDir(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket directory %s: %w", dir, err)
	}
	unlock = func() { _ = unix.Close(fd) } // a descriptor without data has nothing to lose
	for end := time.Now().Add(lockLimit); ; {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			unlock()
			return nil, fmt.Errorf("cannot lock socket directory %s: %w; see in /proc/locks who holds it", dir, err)
		}
		<-time.After(time.Millisecond)
	}
}

// isDead tells whether nobody listens on path. A daemon that is alive but stuck is not dead: a
// connection is made by the kernel, at once, or refused with EAGAIN while the queue is full.
func isDead(path string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return true, nil
	}
	return false, fmt.Errorf("connect to %s: %w", path, err)
}

// dial connects to the socket at path. It does not wait: the kernel makes the connection at once, or
// refuses it, with EAGAIN while the queue is full (unix(7)). net.Dial would do the same, and link a
// resolver of names into every shim.
func dial(path string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
}

// socketFile is a socket in the file system as it was when it was identified, so that another one
// of the same name is not taken for it.
type socketFile struct {
	path     string
	dev, ino uint64
	made     unix.Timespec // of last modification; inode numbers alone are reused
}

// identify returns the identity of the socket at path. ino is 0 if there is none.
func identify(path string) (socketFile, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return socketFile{path: path}, nil
	case err != nil:
		return socketFile{}, fmt.Errorf("look at socket %s: %w", path, err)
	}
	return socketFile{path: path, dev: uint64(st.Dev), ino: st.Ino, made: st.Mtim}, nil
}

// remove unlinks the socket if it is still the one that was identified. It is no error if it is
// gone or if another one has taken its place.
func (s socketFile) remove() error {
	return s.removeIf(func() (bool, error) {
		now, err := identify(s.path)
		return now == s, err
	})
}

// removeDead unlinks the socket at path if nobody listens on it.
func removeDead(path string) error {
	return socketFile{path: path}.removeIf(func() (bool, error) { return isDead(path) })
}

// removeIf unlinks the socket if cond holds, which is asked under the lock.
func (s socketFile) removeIf(cond func() (bool, error)) error {
	unlock, err := lockDir(filepath.Dir(s.path))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	defer unlock()
	if ok, err := cond(); err != nil || !ok {
		return err
	}
	if err := unix.Unlink(s.path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove socket %s: %w", s.path, err)
	}
	return nil
}

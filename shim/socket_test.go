package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/internal/bundle"
)

// TestSocketPathIsTheOneManagersCompute has sums made with sha256sum.
func TestSocketPathIsTheOneManagersCompute(t *testing.T) {
	for _, c := range []struct{ dir, address, namespace, group, want string }{
		// printf %s /run/containerd/containerd.sock/k8s.io/pod | sha256sum
		{"", "/run/containerd/containerd.sock", "k8s.io", "pod",
			"/run/containerd/s/b9cab8e84f817f3c3bb561c7ea8dcbfba051d5d8f56ec2c3f204bc387d13f7d0"},
		// CRI-O has no address: printf %s default/c1 | sha256sum
		{"/s", "", "default", "c1", "/s/3a4ba0ad328f407b30cccb555302fc1c4c73e1d92d16d2583787f9faddf320ca"},
		// The path is cleaned first.
		{"/s", "/run//containerd/./containerd.sock", "k8s.io", "pod", "/s/b9cab8e84f817f3c3bb561c7ea8dcbfba051d5d8f56ec2c3f204bc387d13f7d0"},
	} {
		if got := SocketPath(c.dir, c.address, c.namespace, c.group); got != c.want {
			t.Errorf("%q %q %q %q: %s, want %s", c.dir, c.address, c.namespace, c.group, got, c.want)
		}
	}
}

func TestListenClaimsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "s")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listen(path); !errors.Is(err, errTaken) {
		t.Errorf("second listen: %v, want %v", err, errTaken)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestDeadSocketIsReplacedByOne has many at a time find the socket of a dead daemon, again and
// again: the loser of the race must not take the winner's socket for the dead one.
func TestDeadSocketIsReplacedByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for round := range 50 {
		dead, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		dead.Close()
		var all sync.WaitGroup
		won := make(chan *listener, 8)
		for range cap(won) {
			all.Go(func() {
				l, err := listen(path)
				switch {
				case err == nil:
					won <- l
				case !errors.Is(err, errTaken):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
		close(won)
		if len(won) != 1 {
			t.Fatalf("round %d: %d of %d got the socket", round, len(won), cap(won))
		}
		l := <-won
		if now, err := identify(path); err != nil || now != l.at {
			t.Fatalf("round %d: the file is %+v, %v, not that of the winner, %+v", round, now, err, l.at)
		}
		if err := errors.Join(l.at.remove(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBusyDaemonIsNotDead fills the queue of a listener that accepts nothing.
func TestBusyDaemonIsNotDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for full := false; !full; {
		conn, err := net.Dial("unix", path)
		if full = err != nil; full && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		} else if !full {
			defer conn.Close()
		}
	}
	if dead, err := isDead(path); dead || err != nil {
		t.Errorf("dead is %v, %v", dead, err)
	}
	if _, err := listen(path); !errors.Is(err, errTaken) {
		t.Errorf("listen: %v, want %v", err, errTaken)
	}
}

func TestLongSocketPathIsRefusedWithARemedy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200))
	_, err := listen(SocketPath(dir, "", "n", "x"))
	if err == nil || !strings.Contains(err.Error(), "limit is 106") || !strings.Contains(err.Error(), "shorter socket directory") {
		t.Errorf("error is %v", err)
	}
	if exists(dir) {
		t.Error("the directory has been made")
	}
	// The longest that fits.
	t.Chdir(t.TempDir())
	path := strings.Repeat("s", maxSocketPath)
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// TestPermissionsDoNotDependOnTheUmask is the table of demand.md 132.
func TestPermissionsDoNotDependOnTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o022} {
		t.Run(fmt.Sprintf("%03o", umask), func(t *testing.T) {
			old := unix.Umask(umask)
			defer unix.Umask(old)
			dir := filepath.Join(t.TempDir(), "s")
			l, err := listen(filepath.Join(dir, "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			address := filepath.Join(dir, "address")
			if err := bundle.Replace(address, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			for path, want := range map[string]os.FileMode{dir: 0o700, l.at.path: 0o600, address: 0o644} {
				if got := fileMode(t, path); got != want {
					t.Errorf("%s has mode %o, want %o", path, got, want)
				}
			}
		})
	}
}

func TestExistingSocketDirectoryIsLeftAsItIs(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	l, err := listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if got := fileMode(t, dir); got != 0o711 {
		t.Errorf("mode is %o now", got)
	}
}

func TestStrangersSocketDirectoryIsRefused(t *testing.T) {
	inside(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(filepath.Join(dir, "s")); err == nil || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("error is %v", err)
	}
}

func TestRemoveSparesASuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	second, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.at.remove(); err != nil || !exists(path) {
		t.Errorf("the first removed the second's socket, %v", err)
	}
	if err := removeDead(path); err != nil || !exists(path) {
		t.Errorf("removeDead removed a living socket, %v", err)
	}
	if err := second.at.remove(); err != nil || exists(path) {
		t.Errorf("the second did not remove its own, %v", err)
	}
	for range 2 { // nothing there, and no directory either
		if err := errors.Join(second.at.remove(), removeDead(path)); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
}

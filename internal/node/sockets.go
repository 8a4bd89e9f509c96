package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const scheme = "unix://"

// spaces are the network namespaces that have been looked at, and the sockets that listen there: their
// paths, by inode.
type spaces map[string]map[string]string

// visit looks at the namespace of a process and returns what listens there.
func (s spaces) visit(dir string) map[string]string {
	space, err := os.Readlink(filepath.Join(dir, "ns/net"))
	if err != nil {
		return nil // it has ended
	}
	if s[space] == nil {
		s[space] = listening(filepath.Join(dir, "net/unix"))
	}
	return s[space]
}

// listens tells whether a socket of that path listens somewhere.
func (s spaces) listens(path string) bool {
	for _, paths := range s {
		for _, p := range paths {
			if p == path {
				return true
			}
		}
	}
	return false
}

// address returns where a process listens, or "".
func (s spaces) address(dir string) string {
	paths := s.visit(dir)
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		link, _ := os.Readlink(filepath.Join(dir, "fd", fd.Name())) // it may be closed by now
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			if path := paths[strings.TrimSuffix(inode, "]")]; path != "" {
				return scheme + path
			}
		}
	}
	return ""
}

// accepts is the flag of a socket that listens (__SO_ACCEPTCON).
const accepts = "00010000"

// listening returns the paths of the sockets in /proc/net/unix that listen, by inode. Its columns are
// Num, RefCount, Protocol, Flags, Type, St, Inode and Path.
func listening(file string) map[string]string {
	text, _ := os.ReadFile(file) // a process that has ended has no sockets
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 8 && f[3] == accepts {
			found[f[6]] = f[7]
		}
	}
	return found
}

// deadSockets returns the files of sockets that nobody listens on. A directory that is not there has
// none.
func deadSockets(dirs []string, known spaces) ([]Socket, error) {
	var dead []Socket
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list sockets: %w", err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || info.Mode().Type() != fs.ModeSocket {
				continue
			}
			if path := filepath.Join(dir, e.Name()); !known.listens(path) && IsDead(path) {
				dead = append(dead, Socket{path, info.ModTime()})
			}
		}
	}
	return dead, nil
}

// IsDead tells whether nobody listens on the socket at path. One that is just being made seems dead for
// a moment: between bind(2) and listen(2).
func IsDead(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Remove removes the file of s, if still nobody listens on it. It is moved away first, so that who makes
// one of the same name meanwhile keeps it.
func (s Socket) Remove() error {
	aside := s.Path + ".gc"
	if err := unix.Renameat2(unix.AT_FDCWD, s.Path, unix.AT_FDCWD, aside, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("cannot remove %s: because it cannot be moved aside: %w", s.Path, err)
	}
	if IsDead(aside) {
		return os.Remove(aside)
	}
	err := unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, s.Path, unix.RENAME_NOREPLACE)
	return errors.Join(fmt.Errorf("cannot remove %s: because somebody listens on it now; leave it", s.Path), err)
}

package stdio

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// longLine is how far the end of a line may be beyond the size at which a log is rotated. A line that
// is longer is split.
const longLine = 1 << 20

// rotation says how large a log may become, and how many files of it there may be, the one that is
// written to included. The zero value: as large as it likes.
type rotation struct {
	size  int64
	files int
}

// rotated is a log file that is put aside when it is large enough. The files of a log are NAME,
// NAME.1 for the one before, and so on. It belongs to the goroutine of one relay; other processes of
// the container may have relays to the same log.
//
// Files are renamed, and none is written to afterwards by us, so whoever is killed between two steps
// leaves at most a number that is not in use. Nothing is synced to the disk.
type rotated struct {
	path   string
	limits rotation
	log    *slog.Logger
	file   *os.File
	size   int64

	failing  bool  // the last write failed
	skipping bool  // the rest of a line is to be dropped
	torn     bool  // the last line in the file has no end
	dropped  int64 // bytes, since writes fail
	stuck    bool  // beginning a new file has failed, and has been warned of
}

// openRotated opens the log, which is made if need be.
func openRotated(path string, limits rotation, log *slog.Logger) (*rotated, error) {
	l := &rotated{path: path, limits: limits, log: log}
	return l, l.open(0)
}

// open opens the file that has the name, which becomes ours. One that is new gets the mode, unless
// that is 0.
func (l *rotated) open(mode fs.FileMode) error {
	fd, err := openAppend(l.path)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), l.path)
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("only a regular file can be rotated")
	}
	if err == nil && mode != 0 && info.Size() == 0 {
		err = file.Chmod(mode)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	l.close()
	l.file, l.size = file, info.Size()
	return nil
}

// close may be called on nil, and again.
func (l *rotated) close() {
	if l != nil && l.file != nil {
		_ = l.file.Close() // what was written is the kernel's
		l.file = nil
	}
}

// write appends b, a part of the stream. It returns nothing: the process must not wait or die for
// want of room for its log, so what cannot be written is dropped, in whole lines, and counted.
func (l *rotated) write(b []byte) {
	l.follow()
	for b = l.skip(b); len(b) > 0; b = l.skip(b) {
		n := l.lineEnd(b)
		l.append(b[:n])
		b = b[n:]
		if full := l.size >= l.limits.size; full && !l.failing && (!l.torn || l.size >= l.limits.size+longLine) {
			l.rotate()
		}
	}
}

// skip returns what of b comes after a line that was dropped.
func (l *rotated) skip(b []byte) []byte {
	if !l.skipping {
		return b
	}
	n := bytes.IndexByte(b, '\n') + 1
	if l.skipping = n == 0; l.skipping {
		n = len(b)
	}
	l.dropped += int64(n)
	return b[n:]
}

// lineEnd returns how much of b goes into the file before it may have to be rotated.
func (l *rotated) lineEnd(b []byte) int {
	from := min(max(l.limits.size-l.size-1, 0), int64(len(b)))
	if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
		return int(from) + i + 1
	}
	return len(b)
}

// append writes b to the file, or drops what does not fit. After that it begins with a new line, once
// there is room again.
func (l *rotated) append(b []byte) {
	var err error
	if l.failing && l.torn {
		err = l.put([]byte{'\n'})
	}
	before := l.size
	if err == nil {
		err = l.put(b)
	}
	if err == nil {
		if l.failing {
			l.log.Warn("log is written again", "path", l.path, "dropped", l.dropped)
			l.failing, l.dropped = false, 0
		}
		return
	}
	l.dropped += int64(len(b)) - (l.size - before)
	l.skipping = b[len(b)-1] != '\n'
	if !l.failing {
		l.failing = true
		l.log.Warn("log cannot be written; what does not fit is dropped", "path", l.path, "err", err)
	}
}

// put writes b as far as it fits.
func (l *rotated) put(b []byte) error {
	n, err := l.file.Write(b)
	l.size += int64(n)
	if n > 0 {
		l.torn = b[n-1] != '\n'
	}
	return err
}

// follow opens the file anew if it is not the one that has the name any more: another relay, or the
// administrator, has put it aside.
func (l *rotated) follow() {
	ours, err := l.file.Stat()
	if err != nil {
		return
	}
	if now, err := os.Stat(l.path); err == nil && os.SameFile(ours, now) {
		l.size = ours.Size()
		return
	}
	l.tell("log not opened again; going on in the file that was put aside", l.open(ours.Mode().Perm()))
}

// tell says once what has gone wrong, until it goes well again.
func (l *rotated) tell(what string, err error) {
	if err != nil && !l.stuck {
		l.log.Warn(what, "path", l.path, "err", err)
	}
	l.stuck = err != nil
}

// rotate puts the file aside and begins a new one. If that fails the file goes on growing, until it
// succeeds.
func (l *rotated) rotate() { l.tell("log not rotated", l.shift()) }

// shift is the work of rotate. Somebody else who does the same at this time holds the lock, and
// follow will see what has come of it.
func (l *rotated) shift() error {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	var locked error
	if err := raw.Control(func(fd uintptr) {
		locked = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) // let go with the file
	}); err != nil {
		return err
	}
	if errors.Is(locked, unix.EWOULDBLOCK) {
		return nil
	}
	ours, err := l.file.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(l.path); err != nil || !os.SameFile(ours, now) {
		return nil // it has been put aside already
	}
	for i := l.limits.files - 1; i > 0; i-- {
		if err := os.Rename(l.name(i-1), l.name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put aside: %w", err)
		}
	}
	if l.limits.files == 1 {
		if err := os.Remove(l.path); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
	}
	return l.open(ours.Mode().Perm())
}

// name returns that of the file that was put aside i times.
func (l *rotated) name(i int) string {
	if i == 0 {
		return l.path
	}
	return l.path + "." + strconv.Itoa(i)
}

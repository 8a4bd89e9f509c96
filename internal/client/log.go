package client

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Log is the manager's end of a shim's log: a FIFO in the bundle, which the manager makes before
// it starts the shim (contract section 1.7).
type Log struct {
	file   *os.File
	output *Output
}

// OpenLog makes the log FIFO of a bundle and reads it; w, if not nil, gets what is written as it
// arrives. A FIFO that is there already is taken over, as a manager does that has restarted. The
// caller closes the Log; what the shim writes from then on is lost.
func OpenLog(bundle string, w io.Writer) (*Log, error) {
	path := filepath.Join(bundle, "log")
	if err := syscall.Mkfifo(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make log FIFO %s: %w", path, err)
	}
	// Both ends are ours, so that the stream has no end when a shim closes its own.
	file, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{file: file, output: newOutput(path, file, w)}
	go l.output.collect()
	return l, nil
}

// String returns what has been logged so far.
func (l *Log) String() string { return l.output.String() }

// Output returns the log as a stream, to wait for a line.
func (l *Log) Output() *Output { return l.output }

// Close takes what is left in the FIFO, stops reading and joins the reader.
func (l *Log) Close() {
	// A deadline in the past ends the reader, which else would wait on our own other end.
	if err := l.file.SetReadDeadline(time.Unix(1, 0)); err == nil {
		<-l.output.Done()
		l.rest()
	}
	l.file.Close()
	<-l.output.Done()
}

// rest reads what the reader, once told to end, has left in the FIFO. It does not wait.
func (l *Log) rest() {
	conn, err := l.file.SyscallConn()
	if err != nil || l.file.SetReadDeadline(time.Time{}) != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		var n int
		err := conn.Read(func(fd uintptr) bool {
			n, _ = syscall.Read(int(fd), buf)
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		l.output.add(buf[:n])
	}
}

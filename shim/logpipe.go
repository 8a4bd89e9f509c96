package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	logFile = "log" // FIFO in the bundle, made and read by the manager (contract 1.8)
	// maxLine is PIPE_BUF of pipe(7): a write of up to that many bytes to a FIFO is done whole or
	// not at all, so no reader ever sees half a line.
	maxLine = 4096
	// maxMessage and maxParts bound what is said by one record. Stacks are what is that long.
	maxMessage = 512 // quoting makes at most four times as much of it
	maxParts   = 16
	cutMark    = "…"
)

// OpenLog returns a logger that writes to the log FIFO of a bundle, at level debug or else info,
// and makes the FIFO the standard error of the process too, so that the last words of a crash
// arrive there. The FIFO stays open when the bundle is deleted. Closing the closer leaves
// standard error as it is.
//
// Logging never blocks: if the manager does not read, lines are dropped, and counted in the line
// after them. A bundle without a log FIFO is no error: everything is dropped.
func OpenLog(bundle string, debug bool) (*slog.Logger, io.Closer, error) {
	logger, pipe := openLog(bundle, debug)
	if pipe.fd < 0 {
		return logger, pipe, nil
	}
	if err := unix.Dup3(pipe.fd, 2, 0); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the log standard error: %w", err), pipe.Close())
	}
	return logger, pipe, nil
}

// openLog is OpenLog without standard error.
func openLog(bundle string, debug bool) (*slog.Logger, *logPipe) {
	pipe := &logPipe{fd: openLogPipe(filepath.Join(bundle, logFile))}
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(&lineHandler{to: pipe, level: level}), pipe
}

// openLogPipe opens the FIFO and returns its descriptor, or -1 if there is none.
//
// It is opened at both ends, which on Linux never blocks (fifo(7)). So there is no SIGPIPE while
// the manager is away, and what was written meanwhile is there when it comes back.
func openLogPipe(path string) int {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		_ = unix.Close(fd) // nothing was written
		return -1
	}
	return fd
}

// logPipe writes lines to a FIFO, or drops them. It has a bare descriptor, because an os.File would
// wait until the FIFO takes more.
type logPipe struct {
	mu      sync.Mutex // guards what follows; held over writes, which cannot block
	fd      int        // -1: there is no FIFO, or it has been closed
	dropped int        // lines since the last one that was written
}

// line writes one line, which ends in a newline.
func (p *logPipe) line(text []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return
	}
	if p.dropped > 0 {
		gap := fmt.Sprintf("%d lines dropped, because nobody read the log", p.dropped)
		if !p.write(append(appendHead(nil, time.Now(), slog.LevelWarn, gap), '\n')) {
			p.dropped++
			return
		}
		p.dropped = 0
	}
	if !p.write(text) {
		p.dropped++
	}
}

// write tells whether the FIFO took text.
func (p *logPipe) write(text []byte) bool {
	for {
		_, err := unix.Write(p.fd, text)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// Close ends the writing. It is idempotent.
func (p *logPipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil
	}
	err := unix.Close(p.fd)
	p.fd = -1
	return err
}

// lineHandler formats records the way containerd's own log looks, since that is where they end up.
type lineHandler struct {
	to     *logPipe
	level  slog.Level
	prefix string // of keys: the names of the open groups
	attrs  []byte // formatted
}

func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = appendAttr(attrs, h.prefix, a)
		return true
	})
	for _, line := range formatRecord(r.Time, r.Level, r.Message, attrs) {
		h.to.line(line)
	}
	return nil
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		n.attrs = appendAttr(n.attrs, h.prefix, a)
	}
	return &n
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	n := *h
	if name != "" {
		n.prefix = h.prefix + name + "."
	}
	return &n
}

// formatRecord returns a record as lines of at most maxLine bytes each. What is too long for one
// goes on in others with the same beginning.
func formatRecord(at time.Time, level slog.Level, msg string, attrs []byte) [][]byte {
	head := appendHead(nil, at, level, msg)
	var lines [][]byte
	for len(lines) < maxParts {
		room := maxLine - len(head) - len("\n")
		if len(lines) == maxParts-1 {
			room -= len(cutMark)
		}
		part := prefixOf(attrs, room)
		attrs = attrs[len(part):]
		line := append(head[:len(head):len(head)], part...)
		if len(attrs) == 0 {
			return append(lines, append(line, '\n'))
		}
		if len(lines) == maxParts-1 {
			line = append(line, cutMark...)
		}
		lines = append(lines, append(line, '\n'))
	}
	return lines
}

// prefixOf returns the longest beginning of text that has at most n bytes and no part of a
// character.
func prefixOf(text []byte, n int) []byte {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// appendHead appends what each line begins with.
func appendHead(b []byte, at time.Time, level slog.Level, msg string) []byte {
	b = append(b, `time="`...)
	b = at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `" level=`...)
	b = append(b, levelName(level)...)
	b = append(b, ` msg=`...)
	if len(msg) > maxMessage {
		msg = string(prefixOf([]byte(msg), maxMessage)) + cutMark
	}
	return strconv.AppendQuote(b, msg)
}

// levelName returns the name that containerd's log has for a level.
func levelName(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "debug"
	case level < slog.LevelWarn:
		return "info"
	case level < slog.LevelError:
		return "warning"
	}
	return "error"
}

func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range value.Group() {
			b = appendAttr(b, prefix, member)
		}
		return b
	}
	if a.Key == "" {
		return b
	}
	b = append(b, ' ')
	b = appendText(b, prefix+a.Key)
	b = append(b, '=')
	if value.Kind() == slog.KindTime {
		return appendText(b, value.Time().Format(time.RFC3339Nano))
	}
	return appendText(b, value.String())
}

// appendText appends text, in quotes if it would not be one word without.
func appendText(b []byte, text string) []byte {
	odd := func(r rune) bool {
		return r == '"' || r == '=' || r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}
	if text == "" || strings.ContainsFunc(text, odd) {
		return strconv.AppendQuote(b, text)
	}
	return append(b, text...)
}

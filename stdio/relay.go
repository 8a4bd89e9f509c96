package stdio

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A write of up to pipeBuf bytes to a FIFO is taken whole or not at all (pipe(7)).
	pipeBuf = 4096
	// chunk is the most that one splice moves; the kernel moves what is there.
	chunk = 1 << 20
	// quietTime is how long a process may have nothing to say on a console whose input has ended
	// before the console hangs up.
	quietTime = time.Second
)

// relay carries the bytes of one stream from src to dst in one goroutine, until src ends or the
// relay is cut.
type relay struct {
	name     string   // of the stream
	src, dst *end     // a reference each; neither dst nor file: the bytes are dropped
	file     *rotated // where the bytes go, instead of dst
	input    bool     // towards the process
	log      *slog.Logger
	done     chan struct{} // closed by run, last

	plain bool // splice does not work here; used by run only
	drop  bool // there is no dst, and no file, or it is broken; used by run only

	mu      sync.Mutex // guards what follows
	limit   time.Time  // when to give up; zero: never
	hanging bool       // give up when the process has been quiet for a while
}

// run is the relay's goroutine. It goes on until the end of src, or until drain's limit or cut,
// releases the ends and tells ended. After that it may wait for a client until gone is closed.
func (r *relay) run(ended func(*relay), gone <-chan struct{}) {
	defer close(r.done)
	r.drop = r.dst == nil && r.file == nil
	r.plain = r.file != nil
	switch err := r.pump(); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if !r.isMeant() {
			r.log.Warn("stream is cut: somebody still holds it, or nobody reads it", "stream", r.name)
		}
	case err != nil:
		r.log.Warn("stream has broken off", "stream", r.name, "err", err)
	}
	r.src.release()
	r.file.close()
	writer := r.dst.retire()
	ended(r)
	farewell(writer, gone)
}

// release frees the ends of a relay that does not run.
func (r *relay) release() {
	r.src.release()
	r.dst.release()
	r.file.close()
}

// pump moves bytes until the end. An error is a broken source, or os.ErrDeadlineExceeded.
func (r *relay) pump() error {
	for {
		err := r.src.waitRead()
		if r.early(err) {
			continue
		}
		if err == nil {
			err = r.move()
		}
		switch {
		case err == nil:
			r.heard()
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}

// move passes on some of what src holds; it is called when src can be read. At the end of src,
// or when an input is not wanted any more, it returns io.EOF.
func (r *relay) move() error {
	if r.drop || r.plain || r.scanty() {
		return r.copy()
	}
	const flags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	n, err := unix.Splice(r.src.fd, nil, r.dst.fd, nil, chunk, flags)
	switch {
	case err == nil && n == 0:
		return io.EOF
	case err == nil, errors.Is(err, unix.EINTR):
		return nil
	case errors.Is(err, unix.EAGAIN):
		// src has bytes, so it is dst that has no room.
		if err := r.dst.waitWrite(); err != nil {
			return r.broken(err)
		}
		return nil
	default:
		// EINVAL: this pair of files cannot be spliced. With any other error reading and
		// writing will tell on which side it is.
		r.plain = true
		return nil
	}
}

// scanty tells that src holds less than a page. Splicing moves whole buffers of the pipe, so that
// the line of a program that writes line by line would take up a page in the FIFO, and 16 lines
// would fill it. Written, lines share a page.
func (r *relay) scanty() bool {
	n, err := unix.IoctlGetInt(r.src.fd, unix.TIOCINQ)
	return err != nil || n < pipeBuf
}

// copy reads once and writes all that it read. The page lives on the stack, which shrinks again
// while the relay waits for src.
func (r *relay) copy() error {
	var page [pipeBuf]byte
	n, err := unix.Read(r.src.fd, page[:])
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return nil
	case errors.Is(err, unix.EIO) && r.src.tty:
		// Nobody has the slave open. Before the process's exit that means nothing yet.
		if r.src.exited.Load() {
			return io.EOF
		}
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", r.name, err)
	case n == 0:
		return io.EOF
	}
	return r.write(page[:n])
}

func (r *relay) write(b []byte) error {
	if r.file != nil {
		r.file.write(b)
		return nil
	}
	for !r.drop && len(b) > 0 {
		n, err := unix.Write(r.dst.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
			err = r.dst.waitWrite()
		}
		if err != nil {
			return r.broken(err)
		}
		b = b[max(n, 0):]
	}
	return nil
}

// broken is called when dst fails. The process must not block for ever, or die, because the
// reader of its output is broken, so output is dropped from now on. Input simply ends.
func (r *relay) broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if r.input {
		return io.EOF
	}
	r.log.Warn("cannot pass on output any more, dropping it", "stream", r.name, "err", err)
	r.drop = true
	return nil
}

// drain lets the relay go on until limit: the process is gone, and what is left to read is what
// it left behind, or comes from its children.
func (r *relay) drain(limit time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit, r.hanging = limit, false
	r.dst.writeDeadline(limit)
	if r.src != nil && r.src.tty {
		// The relay may sleep through a hang-up: wake it, early gives it the true deadline.
		r.src.exited.Store(true)
		limit = past()
	}
	r.src.readDeadline(limit)
}

// hangUp ends the relay once its source has been quiet for quietTime, and at limit at the latest.
func (r *relay) hangUp(limit time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit, r.hanging = limit, true
	r.dst.writeDeadline(limit)
	r.src.readDeadline(earlier(time.Now().Add(quietTime), limit))
}

// heard is called for each bit of what src says.
func (r *relay) heard() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hanging {
		r.src.readDeadline(earlier(time.Now().Add(quietTime), r.limit))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// cut ends the relay at once.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = past()
	r.src.readDeadline(past())
	r.dst.writeDeadline(past())
}

// isMeant tells whether it was cut or hangUp that has ended the relay.
func (r *relay) isMeant() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hanging || r.limit.Equal(past())
}

// early tells whether err is a deadline that came before the limit, and sets the true one.
func (r *relay) early(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(err, os.ErrDeadlineExceeded) || r.hanging || !time.Now().Before(r.limit) {
		return false
	}
	r.src.readDeadline(r.limit)
	return true
}

// past is a deadline that has passed.
func past() time.Time {
	return time.Unix(1, 0)
}

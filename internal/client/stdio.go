package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/containerd/fifo"
)

// IOConfig says which streams of a process a client wants.
type IOConfig struct {
	Stdin    bool      // a FIFO for standard input
	Terminal bool      // no FIFO for standard error: a terminal has one output
	Stdout   io.Writer // gets a copy of the output as it arrives; nil = none
	Stderr   io.Writer
	Forget   bool // keep no output for Output.String: there may be much of it
}

// IO is the client's side of the standard streams of one process: the FIFOs, which the client
// makes, and their client ends (contract section 7.2).
type IO struct {
	Stdin, Stdout, Stderr string // paths for the request; "" where there is no stream
	Terminal              bool   // for the request

	In       io.WriteCloser // end of standard input; nil without one; writing blocks until the shim has opened it
	Out, Err *Output        // Err is nil for a terminal
}

// OpenIO makes the FIFOs of a process in dir, which must exist, and opens the client ends. It
// does not wait for the shim. FIFOs that are there already are taken over, as a client does that
// attaches again. The caller closes the IO.
func OpenIO(dir, name string, cfg IOConfig) (*IO, error) {
	s := &IO{Terminal: cfg.Terminal}
	err := s.open(filepath.Join(dir, name), cfg)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open streams of %s: %w", name, err)
	}
	return s, nil
}

func (s *IO) open(prefix string, cfg IOConfig) (err error) {
	s.Stdout = prefix + "-stdout"
	if s.Out, err = openOutput(s.Stdout, cfg.Stdout, cfg.Forget); err != nil {
		return err
	}
	if !cfg.Terminal {
		s.Stderr = prefix + "-stderr"
		if s.Err, err = openOutput(s.Stderr, cfg.Stderr, cfg.Forget); err != nil {
			return err
		}
	}
	if cfg.Stdin {
		s.Stdin = prefix + "-stdin"
		end, openErr := openFIFO(s.Stdin, syscall.O_WRONLY)
		if openErr != nil {
			return openErr
		}
		s.In = &input{WriteCloser: end}
	}
	return nil
}

// input can be closed more than once, and from several goroutines.
type input struct {
	io.WriteCloser
	once sync.Once
	err  error
}

func (i *input) Close() error {
	i.once.Do(func() { i.err = i.WriteCloser.Close() })
	return i.err
}

// Drained waits until all output has arrived, that is until nobody holds the other ends.
func (s *IO) Drained(ctx context.Context) error {
	for _, out := range []*Output{s.Out, s.Err} {
		if out == nil {
			continue
		}
		select {
		case <-out.Done():
		case <-ctx.Done():
			return fmt.Errorf("drain %s: %w; the stream is still open after %q", out.path, ctx.Err(), out)
		}
	}
	return nil
}

// Close closes the client ends and joins the readers. The FIFOs stay where they are.
func (s *IO) Close() {
	if s.In != nil {
		s.In.Close()
	}
	for _, out := range []*Output{s.Out, s.Err} {
		if out != nil {
			out.close()
		}
	}
}

// openFIFO makes the FIFO if need be and opens it without waiting for the other side.
func openFIFO(path string, flag int) (io.ReadWriteCloser, error) {
	if err := syscall.Mkfifo(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	// The context bounds the opening, which goes on in the background until somebody opens the
	// other side: it ends with Close.
	return fifo.OpenFifo(context.Background(), path, flag|syscall.O_NONBLOCK, 0)
}

// Output collects what one stream delivers. Safe for concurrent use.
type Output struct {
	path string
	end  io.ReadCloser
	tee  io.Writer
	drop bool // add nothing to data
	done chan struct{}

	mu      sync.Mutex // guards what follows
	data    bytes.Buffer
	changed chan struct{} // closed and replaced when data arrives
}

func openOutput(path string, tee io.Writer, forget bool) (*Output, error) {
	end, err := openFIFO(path, syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	o := newOutput(path, end, tee)
	o.drop = forget
	go o.collect()
	return o, nil
}

// newOutput is an Output that owns end. The caller starts collect.
func newOutput(path string, end io.ReadCloser, tee io.Writer) *Output {
	return &Output{
		path: path, end: end, tee: tee,
		done: make(chan struct{}), changed: make(chan struct{}),
	}
}

// collect ends with the stream, or when close closes our end. A tee that fails is dropped: the
// process must not be stopped by it.
func (o *Output) collect() {
	defer close(o.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := o.end.Read(buf)
		if n > 0 {
			if !o.drop {
				o.add(buf[:n])
			}
			if o.tee != nil {
				if _, err := o.tee.Write(buf[:n]); err != nil {
					o.tee = nil
				}
			}
		}
		if err != nil {
			return
		}
	}
}

func (o *Output) add(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data.Write(b)
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *Output) close() {
	o.end.Close()
	<-o.done
}

// Done is closed when the stream has ended and everything is in String.
func (o *Output) Done() <-chan struct{} { return o.done }

// String returns what has arrived so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// WaitFor waits until text is in the output. It does not wait longer than the stream lasts.
func (o *Output) WaitFor(ctx context.Context, text string) error {
	for {
		o.mu.Lock()
		found, changed := bytes.Contains(o.data.Bytes(), []byte(text)), o.changed
		o.mu.Unlock()
		if found {
			return nil
		}
		var err error
		select {
		case <-changed:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-o.done:
			if bytes.Contains([]byte(o.String()), []byte(text)) {
				return nil
			}
			err = io.EOF
		}
		return fmt.Errorf("wait for %q on %s: %w; got %q", text, o.path, err, o)
	}
}

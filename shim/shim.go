package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// call is one run of the binary: what it was given, and where its answer goes.
type call struct {
	binary         string // argv[0]
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer
	*flags
}

// action is one way to run the binary. What it returns as an error becomes one line on stderr.
type action func(ctx context.Context, c *call) error

// actionNamed returns the action of that name, or nil.
func actionNamed(name string) action {
	switch name {
	case "":
		return runDaemon
	case "start":
		return start
	case "delete":
		return cleanUp
	case "features":
		return printFeatures
	}
	return nil
}

// Main runs the binary with the given arguments, of which the first is its own name, and returns
// its exit status. It uses the process as a whole: working directory, descriptors, signals.
func Main(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &call{binary: args[0], env: env, stdin: stdin, stdout: stdout, stderr: stderr}
	if err := c.run(context.Background(), args[1:]); err != nil {
		c.complain(err)
		return 1
	}
	return 0
}

func (c *call) run(ctx context.Context, args []string) error {
	var err error
	if c.flags, err = parseFlags(args); err != nil {
		return err
	}
	if err := sealDescriptors(); err != nil {
		return err
	}
	if err := cleanEnvironment(); err != nil {
		return err
	}
	do := actionNamed(c.action)
	switch {
	case c.version:
		do = printVersion
	case c.info:
		do = printInfo
	case do == nil:
		return fmt.Errorf("cannot do %q: actions are start, delete and features; without one the daemon runs", c.action)
	}
	return do(ctx, c)
}

// complain writes err to stderr as one line, which is what a manager shows to its user.
func (c *call) complain(err error) {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	// There is nobody to tell that stderr cannot be written.
	_, _ = fmt.Fprintf(c.stderr, "%s: %s\n", filepath.Base(c.binary), text)
}

// DaemonParams is what a daemon has to know.
type DaemonParams struct {
	Namespace string
	ID        string // of the first container, for which the daemon was started
	// Bundle is the absolute path of the first container's bundle. The daemon may outlive it.
	Bundle string
	// Address and TTRPCAddress are the manager's sockets for gRPC and for events, or empty.
	Address      string
	TTRPCAddress string
	// SocketPath is the path on which Listener listens, Group the grouping key it is made from.
	SocketPath string
	Group      string
	Debug      bool
	// Listener belongs to the daemon; closing it leaves the file at SocketPath.
	Listener net.Listener

	socket socketFile
}

// RemoveSocket removes the daemon's socket from the file system, unless another daemon's has taken
// its place. Call it before closing Listener, so that a start sees either a daemon that answers or
// no socket.
func (p DaemonParams) RemoveSocket() error { return p.socket.remove() }

// Variables by which start tells its daemon what is not on the command line.
const (
	socketVariable = "HOLDFAST_SOCKET"
	groupVariable  = "HOLDFAST_GROUP"
	// childProcsVariable is the GOMAXPROCS for the daemon's children.
	childProcsVariable = "HOLDFAST_CHILD_GOMAXPROCS"
)

// Descriptors that start gives to its daemon.
const (
	listenerFD = 3 // the listening socket
	heldFD     = 4 // a pipe, on which start says that it has answered
)

// runDaemon serves until the daemon is told to end.
func runDaemon(ctx context.Context, c *call) error {
	bundle, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the bundle: %w", err)
	}
	p, err := daemonParams(c, bundle)
	if err == nil {
		err = restoreProcs()
	}
	if err != nil {
		// start has given us no stderr, so the manager can learn of it by the log only.
		log, closer := openLog(bundle, c.debug)
		log.Error("daemon not started", "task", c.id, "err", err)
		return errors.Join(err, closer.Close())
	}
	return serve(ctx, p)
}

// daemonParams collects what the daemon has to know, takes over its listener and leaves the
// bundle, which may be deleted while the daemon lives.
func daemonParams(c *call, bundle string) (DaemonParams, error) {
	if err := checkNames(c.namespace, c.id); err != nil {
		return DaemonParams{}, err
	}
	var err error
	p := DaemonParams{
		Namespace: c.namespace, ID: c.id, Bundle: bundle, Address: c.address, Debug: c.debug,
		TTRPCAddress: lookup(c.env, "TTRPC_ADDRESS"), Group: lookup(c.env, groupVariable),
		SocketPath: lookup(c.env, socketVariable),
	}
	if p.Group == "" {
		p.Group = p.ID
	}
	if c.socket != "" {
		p.SocketPath = c.socket
		err = p.listen()
	} else {
		err = p.inherit()
	}
	if err != nil {
		return DaemonParams{}, err
	}
	if err := os.Chdir("/"); err != nil {
		return DaemonParams{}, errors.Join(err, p.RemoveSocket())
	}
	return p, nil
}

// listen makes the socket itself, for a daemon that was not started by start.
func (p *DaemonParams) listen() error {
	l, err := listen(p.SocketPath)
	if err != nil {
		return err
	}
	p.socket = l.at
	return p.serveOn(l.File)
}

// inherit takes over the socket that start has made, once start has answered.
func (p *DaemonParams) inherit() error {
	if p.SocketPath == "" {
		return fmt.Errorf("cannot run as a daemon: it is started by the action start; by hand add -socket PATH")
	}
	var err error
	if p.socket, err = identify(p.SocketPath); err != nil {
		return err
	}
	if err := awaitRelease(os.NewFile(heldFD, "release")); err != nil {
		return errors.Join(err, p.RemoveSocket())
	}
	return p.serveOn(os.NewFile(listenerFD, p.SocketPath))
}

// serveOn makes the listener of f, which it closes.
func (p *DaemonParams) serveOn(f *os.File) error {
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("listen on descriptor %d: %w", listenerFD, err), p.RemoveSocket())
	}
	p.Listener = l
	return nil
}

// errAbandoned says that start died between forking the daemon and answering: nobody will ever
// connect, and the manager counts the container as not created.
var errAbandoned = errors.New("the start action ended before it answered")

// awaitRelease waits for the byte that start writes after its answer. The wait is as long as start
// lives, for the kernel closes the other end of the pipe with it.
func awaitRelease(pipe *os.File) error {
	var b [1]byte
	_, err := io.ReadFull(pipe, b[:])
	if errors.Is(err, io.EOF) {
		err = errAbandoned
	}
	return errors.Join(err, pipe.Close())
}

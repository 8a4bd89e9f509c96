package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is a command that runs on a pseudo-terminal of its own.
type terminal struct {
	master *os.File
	cmd    *exec.Cmd
	ended  chan struct{} // closed when all output has been read

	mu  sync.Mutex // guards what follows
	out bytes.Buffer
}

// onTerminal starts ctr on a new terminal of the given size.
func (c *containerd) onTerminal(t *testing.T, rows, columns uint16, args ...string) *terminal {
	t.Helper()
	master, slave, err := openTerminal(rows, columns)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	line := c.command(args...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &terminal{master: master, cmd: cmd, ended: make(chan struct{})}
	go p.read() // ends when the last holder of the slave is gone
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = master.Close()
		<-p.ended
	})
	return p
}

// openTerminal returns both ends of a new pseudo-terminal (pty(7)).
func openTerminal(rows, columns uint16) (master, slave *os.File, err error) {
	// Nonblocking, so that Close ends a Read. Asking the file for its descriptor would undo that.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err = resize(master, rows, columns); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

// resize changes a terminal's size, of which what runs on it is told by SIGWINCH.
func resize(master *os.File, rows, columns uint16) error {
	conn, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = conn.Control(func(fd uintptr) {
		size := &unix.Winsize{Row: rows, Col: columns}
		failure = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size)
	})
	return errors.Join(err, failure)
}

func (p *terminal) read() {
	defer close(p.ended)
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.out.Write(buf[:n])
		p.mu.Unlock()
		if err != nil {
			return // EIO: nobody holds the slave any more
		}
	}
}

// output returns what the command has printed, without the carriage returns of the terminals (the
// container has another one).
func (p *terminal) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.out.String(), "\r", "")
}

// await waits until the command has printed text.
func (p *terminal) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, func() error {
		if out := p.output(); !strings.Contains(out, text) {
			return fmt.Errorf("the terminal does not show %q but %q", text, out)
		}
		return nil
	})
}

// enter types a line.
func (p *terminal) enter(t *testing.T, line string) {
	t.Helper()
	if _, err := p.master.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}

// wait returns the command's exit status.
func (p *terminal) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("%q did not end within %v; its terminal: %q", p.cmd.Args, patience, p.output())
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

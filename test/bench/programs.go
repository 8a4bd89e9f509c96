package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// programWord, as the first argument, makes this binary one of the programs that it measures with.
const programWord = "program"

// block is what the writer writes, and the readers ask for, at once.
const block = 1 << 20

// program runs the program that args name, outside or inside a container. They use raw system
// calls on blocking descriptors, as a program in C would.
func program(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "write":
		return writeOnCommand(args[1], args[2])
	case len(args) > 4 && args[0] == "ask":
		return asker(args[1], args[2], args[3], args[4:])
	case len(args) == 1 && args[0] == "drain":
		return drainAsLogger()
	}
	return fmt.Errorf("no such program: %q", args)
}

// writeOnCommand reads how many bytes to write from the FIFO control, writes them to standard
// output, and says so with a byte to the FIFO reply; again and again, until control ends.
func writeOnCommand(control, reply string) error {
	in, err := unix.Open(control, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", control, err)
	}
	out, err := unix.Open(reply, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", reply, err)
	}
	data := bytes.Repeat([]byte{'x'}, block)
	var command [8]byte
	for {
		// A FIFO gives the eight bytes of one write in one piece (pipe(7)).
		switch n, err := again(unix.Read, in, command[:]); {
		case err != nil:
			return fmt.Errorf("read command: %w", err)
		case n == 0:
			return nil
		}
		if err := writeAll(1, data, int64(binary.LittleEndian.Uint64(command[:]))); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		if _, err := again(unix.Write, out, []byte{'.'}); err != nil {
			return fmt.Errorf("reply: %w", err)
		}
	}
}

// writeAll writes n bytes, of data over and over.
func writeAll(fd int, data []byte, n int64) error {
	for n > 0 {
		written, err := again(unix.Write, fd, data[:min(n, int64(len(data)))])
		if err != nil {
			return err
		}
		n -= int64(written)
	}
	return nil
}

// drainAsLogger is a logging program (binary://) that reads both streams and keeps nothing.
func drainAsLogger() error {
	if err := unix.Close(5); err != nil { // thus it says that it is ready
		return fmt.Errorf("say that the logger is ready: %w", err)
	}
	var errs [2]error
	var wg sync.WaitGroup
	for i, fd := range []int{3, 4} {
		wg.Go(func() { errs[i] = drainAll(fd) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// drainAll reads until the end.
func drainAll(fd int) error {
	buf := make([]byte, block)
	for {
		if n, err := again(unix.Read, fd, buf); n <= 0 || err != nil {
			return err
		}
	}
}

// again makes a call until no signal interrupts it.
func again(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		if n, err := call(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// openFIFO makes a FIFO, if need be, and opens it. Opened for reading it does not wait for a
// writer, nor does a read; it is the same for O_RDWR.
func openFIFO(path string, flags int) (int, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return -1, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open FIFO %s: %w", path, err)
	}
	return fd, nil
}

// openPTY opens both sides of a new terminal: the master as openFIFO would, and the slave as a
// process has it.
func openPTY() (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("open terminal: %w", err)
	}
	var n int
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err == nil {
		n, err = unix.IoctlGetInt(master, unix.TIOCGPTN)
	}
	if err == nil {
		slave, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("open terminal: %w", err)
	}
	return master, slave, nil
}

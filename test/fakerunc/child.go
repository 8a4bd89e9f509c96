package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Hidden verbs by which fakerunc starts itself.
const (
	childVerb = "fakerunc-child" // live, as the process of a container
	waitVerb  = "fakerunc-wait"  // do one thing later
)

// orders is what a process is told.
type orders struct {
	Child
	Fifo string // wait until this is opened for writing; empty: do not wait
}

// startChild starts the process of a container or exec and returns its pid, without ever waiting
// for it. It lives in a session of its own, on the terminal if there is one, and otherwise with
// the descriptors that we were given.
func startChild(child Child, fifo string, terminal *os.File) (int, error) {
	text, err := json.Marshal(orders{child, fifo})
	if err != nil {
		return 0, err
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	attr := &syscall.SysProcAttr{Setsid: true}
	if terminal != nil {
		files = []*os.File{terminal, terminal, terminal}
		attr.Setctty = true
	}
	pid, err := startSelf(childVerb, string(text), files, attr)
	if err == nil && child.Dead {
		var info unix.Siginfo
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil) // stays a zombie
	}
	return pid, err
}

// startSelf starts fakerunc under a hidden verb.
func startSelf(verb, arg string, files []*os.File, attr *syscall.SysProcAttr) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	p, err := os.StartProcess(self, []string{"fakerunc", verb, arg}, &os.ProcAttr{Files: files, Sys: attr})
	if err != nil {
		return 0, err
	}
	return p.Pid, nil
}

// live is the life of a process. It returns the exit status.
func live(text string) int {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, "fakerunc:", err)
		return 98
	}
	if o.Deaf {
		signal.Ignore()
	}
	if o.Fifo != "" {
		f, err := os.OpenFile(o.Fifo, os.O_RDONLY, 0) // until start opens it
		if err != nil {
			return 96 // deleted
		}
		_ = f.Close()
	}
	fmt.Print(o.Output)
	if o.Echo {
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return 95
		}
	} else if o.Life == nil {
		for {
			time.Sleep(time.Hour)
		}
	} else {
		time.Sleep(time.Duration(*o.Life))
	}
	if o.Linger > 0 {
		if err := leaveHolder(time.Duration(o.Linger)); err != nil {
			return 94
		}
	}
	if o.Signal != 0 {
		_ = dieOf(syscall.Signal(o.Signal))
	}
	return o.Exit
}

// later is what a process under waitVerb shall do: end, or write a file first.
type later struct {
	After   Duration
	Path    string
	Content string
}

// leaveHolder leaves a process that keeps our descriptors 0, 1 and 2 open for a while.
func leaveHolder(d time.Duration) error {
	return leave(later{After: Duration(d)}, []*os.File{os.Stdin, os.Stdout, os.Stderr})
}

// leaveWriter leaves a process that writes a file in a while.
func leaveWriter(d time.Duration, path, content string) error {
	return leave(later{After: Duration(d), Path: path, Content: content}, nil)
}

func leave(what later, files []*os.File) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, err = startSelf(waitVerb, string(text), files, &syscall.SysProcAttr{Setsid: true})
	return err
}

func wait(text string) int {
	var what later
	if err := json.Unmarshal([]byte(text), &what); err != nil {
		return 98
	}
	time.Sleep(time.Duration(what.After))
	if what.Path != "" {
		if err := os.WriteFile(what.Path, []byte(what.Content), 0o644); err != nil {
			return 97
		}
	}
	return 0
}

// openPty opens a new pseudoterminal.
func openPty() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

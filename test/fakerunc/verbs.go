package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// imitate does what a runtime does.
func (c *call) imitate() (int, error) {
	switch c.verb {
	case "create", "restore":
		return c.create()
	case "features":
		fmt.Println(`{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0","mountOptions":["bind","ro","rro"]}`)
		return 0, nil
	}
	init, err := readIdent(c.statePath("pid"))
	if errors.Is(err, fs.ErrNotExist) {
		if c.verb == "delete" && c.has("force") {
			return 0, nil
		}
		return c.fail("container does not exist")
	}
	if err != nil {
		return 0, err
	}
	switch c.verb {
	case "start":
		return c.start(init)
	case "exec":
		return c.exec(init)
	case "kill":
		return c.kill(init)
	case "delete":
		return c.delete(init)
	case "ps":
		return 0, json.NewEncoder(os.Stdout).Encode(pids(c.alive(init)))
	case "pause", "resume", "update":
		return 0, nil
	case "checkpoint":
		if !c.has("leave-running") {
			return 0, init.signal(syscall.SIGKILL)
		}
		return 0, nil
	}
	return c.fail("No help topic for '" + c.verb + "'")
}

func (c *call) statePath(name string) string {
	return filepath.Join(c.flags["root"], c.id(), name)
}

func (c *call) create() (int, error) {
	if err := os.MkdirAll(c.flags["root"], 0o700); err != nil {
		return 0, err
	}
	err := os.Mkdir(filepath.Join(c.flags["root"], c.id()), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return c.fail("runc create failed: container with given ID already exists")
	}
	if err != nil {
		return 0, err
	}
	fifo := ""
	if early := c.step.Child.Early || c.step.Child.Dead; c.verb == "create" && !early {
		fifo = c.statePath("start")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			return 0, err
		}
	}
	return 0, c.bear(fifo, func(pid int) error {
		return os.WriteFile(c.statePath("pid"), []byte(identify(pid).String()), 0o600)
	})
}

func (c *call) exec(init ident) (int, error) {
	if !init.isAlive() {
		return c.fail("exec failed: cannot exec in a stopped container")
	}
	return 0, c.bear("", func(pid int) error {
		return appendTo(c.statePath("execs"), identify(pid).String()+"\n")
	})
}

// bear starts the process, has keep remember its pid, and tells the caller of it.
func (c *call) bear(fifo string, keep func(pid int) error) error {
	pid := 1<<22 - 1 // hardly anybody's
	var master *os.File
	if !c.step.Child.None {
		var slave *os.File
		var err error
		if c.has("console-socket") {
			if master, slave, err = openPty(); err != nil {
				return err
			}
		}
		if pid, err = startChild(c.step.Child, fifo, slave); err != nil {
			return err
		}
	}
	if err := keep(pid); err != nil {
		return err
	}
	if err := c.pause("born"); err != nil {
		return err
	}
	if path := c.flags["console-socket"]; path != "" {
		if err := sendConsole(path, c.step.Console, master); err != nil {
			return err
		}
	}
	return c.writePidFile(pid)
}

func (c *call) writePidFile(pid int) error {
	text := c.step.PidFile
	switch text {
	case "", "right":
		text = strconv.Itoa(pid)
	case "missing":
		return nil
	case "garbage":
		text = "12\x00\xff"
	case "late":
		return leaveWriter(100*time.Millisecond, c.flags["pid-file"], strconv.Itoa(pid))
	}
	path := c.flags["pid-file"]
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	f, err := os.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close(), os.Rename(hidden, path))
}

// sendConsole sends what the script says to the console socket.
func sendConsole(path, what string, master *os.File) error {
	if what == "never" {
		return nil
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var fds []int
	switch what {
	case "none":
	case "file":
		fds = []int{int(null.Fd())}
	case "two":
		fds = []int{int(master.Fd()), int(null.Fd())}
	default:
		fds = []int{int(master.Fd())}
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix([]byte("/dev/ptmx"), rights, nil)
	return err
}

// start lets a created init go on: it waits until init has opened the FIFO, and then opens it too.
func (c *call) start(init ident) (int, error) {
	fifo := c.statePath("start")
	if _, err := os.Stat(fifo); err != nil {
		return c.fail("cannot start an already running container")
	}
	for ; ; time.Sleep(2 * time.Millisecond) {
		if !init.isAlive() {
			return c.fail("cannot start a container that has stopped")
		}
		fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return 0, errors.Join(unix.Close(fd), os.Remove(fifo))
		}
		if !errors.Is(err, unix.ENXIO) { // nobody reads yet
			return 0, err
		}
	}
}

func (c *call) kill(init ident) (int, error) {
	if len(c.rest) < 2 {
		return c.fail("signal missing")
	}
	sig, err := strconv.Atoi(c.rest[1])
	if err != nil {
		return c.fail("unknown signal " + strconv.Quote(c.rest[1]))
	}
	targets := []ident{init}
	if c.has("all") {
		targets = c.alive(init)
	} else if !init.isAlive() {
		return c.fail("container not running")
	}
	for _, p := range targets {
		if err := p.signal(syscall.Signal(sig)); err != nil {
			return c.fail("unable to signal init: " + err.Error())
		}
	}
	return 0, nil
}

func (c *call) delete(init ident) (int, error) {
	_, err := os.Stat(c.statePath("start"))
	if running := init.isAlive() && err != nil; running && !c.has("force") {
		return c.fail("cannot delete container " + c.id() + " that is not stopped: running")
	}
	for _, p := range c.alive(init) {
		if err := p.signal(syscall.SIGKILL); err != nil {
			return 0, err
		}
	}
	for init.isAlive() {
		time.Sleep(time.Millisecond)
	}
	return 0, os.RemoveAll(c.statePath("."))
}

// alive returns those of the container's processes that have not ended.
func (c *call) alive(init ident) []ident {
	var list []ident
	if init.isAlive() {
		list = append(list, init)
	}
	execs, _ := os.ReadFile(c.statePath("execs")) // none yet, if it is missing
	for _, line := range strings.Fields(string(execs)) {
		if p, err := parseIdent(line); err == nil && p.isAlive() {
			list = append(list, p)
		}
	}
	return list
}

// pids is what ps prints: nil if all have ended, which JSON calls null, as runc does.
func pids(list []ident) []int {
	var out []int
	for _, p := range list {
		out = append(out, p.pid)
	}
	return out
}

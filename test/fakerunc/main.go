package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == childVerb {
		os.Exit(live(os.Args[2]))
	}
	if len(os.Args) == 3 && os.Args[1] == waitVerb {
		os.Exit(wait(os.Args[2]))
	}
	status, err := run(parse(os.Args[1:]))
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakerunc:", err)
		os.Exit(98)
	}
	os.Exit(status)
}

// call is one execution, as its command line describes it.
type call struct {
	verb  string
	flags map[string]string // by name, without dashes
	rest  []string          // what is no flag: the id, then perhaps a signal
	args  []string
	step  Step
}

// withoutValue names the flags that stand alone.
var withoutValue = map[string]bool{
	"systemd-cgroup": true, "no-pivot": true, "no-new-keyring": true, "no-subreaper": true, "detach": true,
	"force": true, "all": true, "tcp-established": true, "ext-unix-sk": true, "shell-job": true,
	"file-locks": true, "leave-running": true, "debug": true,
}

func parse(args []string) *call {
	c := &call{flags: map[string]string{}, args: args}
	for i := 0; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		name, value, hasValue := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		switch {
		case !isFlag && c.verb == "":
			c.verb = args[i]
		case !isFlag:
			c.rest = append(c.rest, args[i])
		case hasValue || withoutValue[name] || i+1 == len(args):
			c.flags[name] = value
		default:
			i++
			c.flags[name] = args[i]
		}
	}
	return c
}

func (c *call) id() string {
	if len(c.rest) == 0 {
		return ""
	}
	return c.rest[0]
}

func (c *call) has(flag string) bool {
	_, ok := c.flags[flag]
	return ok
}

// execID guesses the id of an exec by the name of its pid file.
func (c *call) execID() string {
	name := strings.TrimSuffix(filepath.Base(c.flags["pid-file"]), ".pid")
	return strings.TrimPrefix(name, "exec.")
}

// run does what the script says and returns the exit status. An error means that the test itself
// is wrong.
func run(c *call) (int, error) {
	var err error
	if c.step, err = readStep(c.verb, c.execID()); err != nil {
		return 0, err
	}
	if err := c.prelude(); err != nil {
		return 0, err
	}
	status, err := c.act()
	if err != nil {
		return 0, err
	}
	if err := c.pause("end"); err != nil {
		return 0, err
	}
	if c.step.Hang {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		for { // not select{}, which the runtime would report as a deadlock
			time.Sleep(time.Hour)
		}
	}
	if c.step.Signal != 0 {
		return 0, dieOf(syscall.Signal(c.step.Signal))
	}
	if c.step.Exit != 0 {
		status = c.step.Exit
	}
	return status, nil
}

// prelude is what happens before the verb itself.
func (c *call) prelude() error {
	if err := c.record(); err != nil {
		return err
	}
	if err := c.pause("begin"); err != nil {
		return err
	}
	time.Sleep(time.Duration(c.step.Sleep))
	fmt.Fprint(os.Stdout, c.step.Stdout)
	fmt.Fprint(os.Stderr, c.step.Stderr)
	for _, line := range c.step.Log {
		if err := c.log(line); err != nil {
			return err
		}
	}
	for name, content := range c.step.Files {
		if err := os.WriteFile(c.expand(name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	if c.step.Hook > 0 {
		return leaveHolder(time.Duration(c.step.Hook))
	}
	return nil
}

func (c *call) expand(name string) string {
	return os.Expand(name, func(v string) string {
		return map[string]string{"WORK": c.flags["work-path"], "IMAGE": c.flags["image-path"], "BUNDLE": c.flags["bundle"]}[v]
	})
}

// act is the verb itself: as scripted, by the real runtime, or as a runtime would.
func (c *call) act() (int, error) {
	switch {
	case c.step.Error != "":
		return c.fail(c.step.Error)
	case c.step.Real != "":
		return c.real()
	}
	return c.imitate()
}

// fail reports an error as runc does.
func (c *call) fail(text string) (int, error) {
	fmt.Fprintln(os.Stderr, text)
	entry, err := json.Marshal(map[string]string{"level": "error", "msg": text, "time": time.Now().Format(time.RFC3339)})
	if err != nil {
		return 0, err
	}
	return 1, c.log(string(entry))
}

// real runs the real runtime, which dies with us.
func (c *call) real() (int, error) {
	cmd := exec.Command(c.step.Real, c.args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode(), nil
	}
	return 0, err
}

func (c *call) log(line string) error {
	path := c.flags["log"]
	if path == "" {
		return nil
	}
	return appendTo(path, line+"\n")
}

func (c *call) record() error {
	if c.step.Record == "" {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	seen := Call{Verb: c.verb, Args: c.args, Env: os.Environ(), Dir: dir}
	if path := c.flags["process"]; path != "" {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		seen.Process, seen.Mode = string(content), info.Mode()
	}
	if c.verb == "update" {
		content, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		seen.Stdin = string(content)
	}
	line, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	return appendTo(c.step.Record, string(line)+"\n")
}

// pause waits at point if the script wants it to.
func (c *call) pause(point string) error {
	if c.step.Pause != point {
		return nil
	}
	base := c.verb + "." + point
	if err := os.WriteFile(base+".reached", nil, 0o600); err != nil {
		return err
	}
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(base + ".go"); err == nil {
			return nil
		}
	}
	fmt.Fprintf(os.Stderr, "fakerunc: nobody made %s.go\n", base)
	os.Exit(97)
	return nil
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// dieOf ends this process by a signal, also by those of which Go makes a panic.
func dieOf(sig syscall.Signal) error {
	var byDefault [64]byte // struct sigaction, all zero: SIG_DFL
	const sigsetSize = 8
	// SIGKILL cannot be set, and need not be.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&byDefault)), 0, sigsetSize, 0, 0)
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		return err
	}
	time.Sleep(time.Minute)
	return fmt.Errorf("survived signal %d", sig)
}

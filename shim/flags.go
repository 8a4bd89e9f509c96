package shim

import (
	"fmt"
	"strconv"
	"strings"
)

// flags is the command line of the binary (contract 1.2).
type flags struct {
	namespace string
	id        string
	address   string // the manager's gRPC socket, part of the socket's name
	publish   string // the manager's own binary; we never run it
	bundle    string // with delete only
	socket    string // daemon: listen here instead of on descriptor 3
	debug     bool
	version   bool
	info      bool

	action  string   // first argument that is not a flag, "" for none
	unknown []string // names of the flags that were ignored
}

// parseFlags reads args, which do not contain the name of the binary, as package flag would:
// one dash or two, the value after a blank or an equals sign, flags before the action.
//
// Unknown flags are ignored and reported in unknown, because managers add flags before shims learn
// of them (demand.md 79). A word after an unknown flag is taken for its value, unless it is the
// name of an action.
func parseFlags(args []string) (*flags, error) {
	f := &flags{}
	for len(args) > 0 {
		name, value, given := splitFlag(args[0])
		if name == "" {
			break
		}
		args = args[1:]
		next := ""
		if !given && len(args) > 0 {
			next = args[0]
		}
		used, err := f.set(name, value, given, next)
		if err != nil {
			return nil, fmt.Errorf("cannot read the command line: %w", err)
		}
		if used {
			args = args[min(1, len(args)):]
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) > 0 {
		f.action = args[0]
	}
	return f, nil
}

// splitFlag takes -name, --name and -name=value apart. The name is empty if arg is not a flag.
func splitFlag(arg string) (name, value string, given bool) {
	if len(arg) < 2 || arg[0] != '-' {
		return "", "", false
	}
	return strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
}

// set stores one flag. The value is given with an equals sign, or else it may be next, "" if there
// is none; used tells that next was the value.
func (f *flags) set(name, value string, given bool, next string) (used bool, err error) {
	if text := f.text(name); text != nil {
		if !given {
			value = next
		}
		*text = value
		return !given, nil
	}
	if on := f.toggle(name); on != nil {
		*on = true
		if given {
			if *on, err = strconv.ParseBool(value); err != nil {
				return false, fmt.Errorf("flag -%s is %q, which is neither true nor false", name, value)
			}
		}
		return false, nil
	}
	f.unknown = append(f.unknown, name)
	return !given && next != "" && next[0] != '-' && actionNamed(next) == nil, nil
}

func (f *flags) text(name string) *string {
	switch name {
	case "namespace":
		return &f.namespace
	case "id":
		return &f.id
	case "address":
		return &f.address
	case "publish-binary":
		return &f.publish
	case "bundle":
		return &f.bundle
	case "socket":
		return &f.socket
	}
	return nil
}

func (f *flags) toggle(name string) *bool {
	switch name {
	case "debug":
		return &f.debug
	case "v", "version":
		return &f.version
	case "info":
		return &f.info
	}
	return nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/internal/client"
)

// greeting prints who and where the container is. Its exit status is one that means nothing else,
// so that one sees it passed on.
const greeting = `
echo "Hello from a container of its own."
echo
echo "  kernel    $(uname -sr)"
echo "  user      $(id -un)"
echo "  pid       $$"
echo "  hostname  $(hostname)"
echo
exit 7
`

// makeBundle makes the private bundle of the run, and tells whether its process has a terminal. It is
// made from the bundle of the user, which is only read, or of the user's root directory and command;
// without either it is a container of ours.
func (r *run) makeBundle(args []string) (terminal bool, err error) {
	if r.rootfs == "" && len(args) > 0 {
		return copyBundle(r.bundle(), args[0], r.terminal)
	}
	ours := client.BundleConfig{Args: args, Hostname: "holdfast", Terminal: r.terminal}
	if r.rootfs == "" {
		ours.Args = r.command()
	} else if ours.Rootfs, err = filepath.Abs(r.rootfs); err != nil {
		return false, err
	}
	if r.terminal {
		ours.Env = []string{`PS1=holdfast\$ `, "HOME=/root"}
	}
	return r.terminal, client.NewBundle(r.bundle(), ours)
}

// fits tells whether the arguments say what to run.
func (r *run) fits(args []string) error {
	switch {
	case slices.Contains(args[:min(len(args), 1)], ""):
		return errors.New("cannot run anything: because the first argument is empty; it is a bundle, or a command")
	case r.rootfs == "" && len(args) > 1 && strings.HasPrefix(args[1], "-"):
		return fmt.Errorf("cannot tell whose flag %s is: because it stands behind the bundle; put flags before it", args[1])
	case r.rootfs == "" && len(args) > 1:
		return fmt.Errorf("cannot run %q: because the bundle %s says what runs in it; for a command of your own give --rootfs DIR",
			args[1], args[0])
	case r.rootfs != "" && len(args) == 0:
		return fmt.Errorf("cannot run anything in %s: because no command is given; put it behind the flags", r.rootfs)
	}
	return nil
}

// copyBundle copies the config.json of a bundle to dir. It is byte for byte the same unless that
// could not work from there: relative paths are made absolute, and a terminal asked for is noted.
// The JSON is changed in place, so that what we know nothing of stays as it is.
func copyBundle(dir, user string, terminal bool) (bool, error) {
	user, err := filepath.Abs(user)
	if err != nil {
		return false, err
	}
	data, err := os.ReadFile(filepath.Join(user, "config.json"))
	if errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("cannot use %s as a bundle: because it has no config.json; name a directory that has one", user)
	}
	if err != nil {
		return false, err
	}
	config := object{}
	if err := json.Unmarshal(data, &config); err != nil {
		return false, fmt.Errorf("cannot use %s/config.json: because it is no JSON object: %w", user, err)
	}
	terminal, changed, err := adapt(config, user, terminal)
	if err != nil {
		return false, fmt.Errorf("cannot use %s/config.json: %w", user, err)
	}
	if changed {
		if data, err = json.MarshalIndent(config, "", "  "); err != nil {
			return false, err
		}
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return false, err
	}
	return terminal, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}

// object is a JSON object of which only some members are looked into.
type object map[string]json.RawMessage

// adapt makes config usable from a directory other than base.
func adapt(config object, base string, terminal bool) (terminalNow, changed bool, err error) {
	var process, root object
	var mounts []object
	for _, member := range []struct {
		name string
		to   any
	}{{"process", &process}, {"root", &root}, {"mounts", &mounts}} {
		if raw, ok := config[member.name]; ok {
			if err := json.Unmarshal(raw, member.to); err != nil {
				return false, false, fmt.Errorf("%s: %w", member.name, err)
			}
		}
	}
	a := adapter{base: base}
	if a.absolute(root, "path") {
		a.put(config, "root", root)
	}
	if a.mounts(mounts) {
		a.put(config, "mounts", mounts)
	}
	if a.is(process, "terminal") {
		terminal = true
	} else if terminal && process != nil {
		a.put(process, "terminal", true)
		a.put(config, "process", process)
	}
	return terminal, a.changed, a.err
}

// adapter changes a configuration. It remembers the first error; after it nothing counts.
type adapter struct {
	base    string
	changed bool
	err     error
}

func (a *adapter) put(o object, name string, value any) {
	raw, err := json.Marshal(value)
	if err != nil && a.err == nil {
		a.err = err
	}
	o[name] = raw
	a.changed = true
}

// get reads a member, which may be missing.
func (a *adapter) get(o object, name string, to any) {
	raw, ok := o[name]
	if !ok {
		return
	}
	if err := json.Unmarshal(raw, to); err != nil && a.err == nil {
		a.err = fmt.Errorf("%s: %w", name, err)
	}
}

func (a *adapter) is(o object, name string) (value bool) {
	a.get(o, name, &value)
	return value
}

// absolute makes a relative path absolute, and reports whether it was one.
func (a *adapter) absolute(o object, name string) bool {
	path := ""
	a.get(o, name, &path)
	if path == "" || filepath.IsAbs(path) {
		return false
	}
	a.put(o, name, filepath.Join(a.base, path))
	return true
}

// mounts makes the sources of bind mounts absolute: a runtime takes them relative to the bundle.
// Those of other mounts are no paths.
func (a *adapter) mounts(mounts []object) bool {
	changed := false
	for _, m := range mounts {
		kind, options := "", []string(nil)
		a.get(m, "type", &kind)
		a.get(m, "options", &options)
		bind := kind == "bind"
		for _, o := range options {
			bind = bind || o == "bind" || o == "rbind"
		}
		if bind && a.absolute(m, "source") {
			changed = true
		}
	}
	return changed
}

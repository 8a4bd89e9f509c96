package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const defaultConfig = "/etc/containerd/config.toml"

// manager is the containerd that runs, or this process in its place if none does.
type manager struct {
	running bool
	name    string
	proc    string // its directory in /proc
	path    string // PATH that it looks for shims in
	config  string
}

// findManager finds containerd in the process table, of several the first.
func (h host) findManager() manager {
	found := manager{name: "holdfast", proc: "/proc/self", path: h.path, config: defaultConfig}
	entries, err := os.ReadDir(h.root + "/proc")
	if err != nil {
		return found
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		dir := "/proc/" + e.Name()
		line, err := h.read(dir + "/cmdline")
		args := strings.Split(line, "\x00")
		if err != nil || filepath.Base(args[0]) != "containerd" {
			continue
		}
		found = manager{running: true, name: "containerd, pid " + e.Name(), proc: dir, path: h.path, config: defaultConfig}
		for i, arg := range args {
			flag, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			if flag != "c" && flag != "config" || arg == flag {
				continue
			}
			if !joined && i+1 < len(args) {
				value = args[i+1]
			}
			found.config = value
		}
		environment, err := h.read(dir + "/environ")
		if err != nil {
			return found
		}
		for _, variable := range strings.Split(environment, "\x00") {
			if path, ok := strings.CutPrefix(variable, "PATH="); ok {
				found.path = path
			}
		}
		return found
	}
	return found
}

func (h host) containerd(ctx context.Context, m manager) []symptom {
	version, err := h.program(ctx, "containerd", "--version") // containerd REPOSITORY VERSION REVISION
	if fields := strings.Fields(version); len(fields) > 2 {
		version = fields[2]
	}
	first := ok("containerd", version+", "+m.name, "")
	switch {
	case err != nil:
		first = fail("containerd", err.Error(), "install it anew")
	case !m.running && version == "":
		first = warn("containerd", "not installed", "none is needed for holdfast run; for ctr, nerdctl and Kubernetes install 1.6 or later")
	case version == "":
		first = ok("containerd", m.name+", not in our PATH", "")
	case older(version, 1, 6):
		first = fail("containerd", version, "use 1.6 or later")
	case !m.running:
		first = warn("containerd", version+", not running", "start it; without it holdfast run works still")
	}
	config, settings := h.configuration(m, version)
	return []symptom{first, config, h.shim(m, settings)}
}

// settings are the lines of a configuration that name something, without comments.
type settings []string

// value returns what is assigned to a key, of several the first for which good holds.
func (s settings) value(key string, good func(string) bool) string {
	for _, line := range s {
		name, value, ok := strings.Cut(line, "=")
		if ok && strings.TrimSpace(name) == key {
			value = strings.Trim(strings.TrimSpace(value), `"'`)
			if good(value) {
				return value
			}
		}
	}
	return ""
}

func anyValue(string) bool { return true }

// configuration looks at the version of containerd's configuration, and whether it names our shim.
func (h host) configuration(m manager, containerd string) (symptom, settings) {
	const check = "containerd's config"
	text, err := h.read(m.config)
	switch {
	case os.IsNotExist(err):
		return ok(check, m.config+" is not there", "fine for ctr and nerdctl; Kubernetes needs a runtime in it"), nil
	case err != nil:
		return warn(check, err.Error(), "run holdfast as root"), nil
	}
	var lines settings
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		lines = append(lines, strings.TrimSpace(line))
	}
	version := lines.value("version", anyValue)
	named := lines.value("runtime_type", func(v string) bool { return strings.Contains(v, "holdfast") })
	fact := fmt.Sprintf("%s, version %s", m.config, dash(version))
	switch {
	case version == "" || version == "1":
		return warn(check, fact, "write version = 2 into it: containerd 2 no longer reads version 1, which it means without"), lines
	case version == "3" && containerd != "" && older(containerd, 2, 0):
		return fail(check, fact, "use version = 2: containerd "+containerd+" reads no other"), lines
	case named == "":
		return ok(check, fact+", no runtime of ours", `for Kubernetes add one with runtime_type = "io.containerd.runc.v2" and the shim's runtime_path`), lines
	}
	return ok(check, fact+", names "+named, ""), lines
}

// shim tells whether containerd finds the shim.
func (h host) shim(m manager, s settings) symptom {
	const check = "shim"
	if path := h.find(shimName, m.path); path != "" {
		return ok(check, path, "")
	}
	path := s.value("runtime_path", func(v string) bool { return filepath.Base(v) == shimName })
	switch {
	case path == "":
		return fail(check, fmt.Sprintf("%s is not in the PATH of %s: %s", shimName, m.name, m.path), "make install, or copy it to /usr/local/bin")
	case !h.exists(path):
		return fail(check, path+", which the config names, is not there", "make install, or correct runtime_path")
	}
	return ok(check, path+", for Kubernetes only", "copy it to a directory in containerd's PATH for ctr and nerdctl")
}

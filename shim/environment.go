package shim

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// We pass on the variables that a daemon, the runtime and hooks are known to need, and no others:
// what is in the manager's environment, passwords of proxies and registries perhaps, would be
// readable in the daemon and in each process after it (demand.md 134).
var (
	passedVariables = map[string]bool{
		"PATH": true, "HOME": true, "TMPDIR": true, "XDG_RUNTIME_DIR": true,
		"TTRPC_ADDRESS": true, "GRPC_ADDRESS": true, "NAMESPACE": true, "MAX_SHIM_VERSION": true,
		"GOMAXPROCS": true, "GODEBUG": true, "GOTRACEBACK": true, "TRACEPARENT": true,
		"DBUS_SESSION_BUS_ADDRESS": true, // the runtime's way to systemd when it is not root
	}
	passedPrefixes = []string{"OTEL_", "HOLDFAST_"}
)

// passVariable names further variables to pass on, separated by commas. With it an administrator
// gets what is in the manager's setting env through to the runtime.
const passVariable = "HOLDFAST_PASS_ENV"

// daemonEnv returns the environment of the daemon.
func (s *starter) daemonEnv() []string {
	own := map[string]string{
		"TTRPC_ADDRESS":    s.params.TTRPCAddress,
		socketVariable:     s.socket,
		groupVariable:      s.group,
		"GOMAXPROCS":       "1", // docs/decisions/0007
		childProcsVariable: lookup(s.env, "GOMAXPROCS"),
	}
	var env []string
	for _, entry := range passedOf(s.env) {
		name, _, _ := strings.Cut(entry, "=")
		if _, set := own[name]; !set {
			env = append(env, entry)
		}
	}
	for _, name := range []string{"TTRPC_ADDRESS", socketVariable, groupVariable, "GOMAXPROCS", childProcsVariable} {
		if value, set := own[name]; set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// cleanEnvironment takes from us what is not passed on. Every action does so: delete runs the runtime too,
// and with it the hooks of the container.
func cleanEnvironment() error {
	named := strings.Split(os.Getenv(passVariable), ",")
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if name == "" || passes(name, named) {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("clean the environment of %s: %w", name, err)
		}
	}
	return nil
}

// restoreProcs gives the runtime, which inherits from us, the GOMAXPROCS that the manager has set and not
// ours.
func restoreProcs() error {
	err := os.Unsetenv("GOMAXPROCS")
	if value := os.Getenv(childProcsVariable); value != "" {
		err = os.Setenv("GOMAXPROCS", value)
	}
	return errors.Join(err, os.Unsetenv(childProcsVariable))
}

// passedOf returns the entries of env that are passed on.
func passedOf(env []string) []string {
	named := strings.Split(lookup(env, passVariable), ",")
	var passed []string
	for _, entry := range env {
		if name, _, _ := strings.Cut(entry, "="); passes(name, named) {
			passed = append(passed, entry)
		}
	}
	return passed
}

// passes tells whether the variable is passed on.
func passes(name string, named []string) bool {
	if name == "" {
		return false
	}
	if passedVariables[name] {
		return true
	}
	for _, prefix := range passedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, n := range named {
		if name == n {
			return true
		}
	}
	return false
}

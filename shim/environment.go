package shim

import "strings"

// A daemon gets the variables that it, the runtime and hooks are known to need, and no others: what
// is in the manager's environment, passwords of proxies and registries perhaps, would be readable
// in the daemon and in each process after it (demand.md 134).
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
		"TTRPC_ADDRESS": s.params.TTRPCAddress,
		socketVariable:  s.socket,
		groupVariable:   s.group,
	}
	if lookup(s.env, "GOMAXPROCS") == "" {
		own["GOMAXPROCS"] = "2" // what managers set; one would be too few (contract T14)
	}
	named := strings.Split(lookup(s.env, passVariable), ",")
	var env []string
	for _, entry := range s.env {
		name, _, _ := strings.Cut(entry, "=")
		if _, set := own[name]; !set && passes(name, named) {
			env = append(env, entry)
		}
	}
	for _, name := range []string{"TTRPC_ADDRESS", socketVariable, groupVariable, "GOMAXPROCS"} {
		if value, set := own[name]; set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// passes tells whether the daemon gets the variable.
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

// Package client is the other side of a shim: the part of a container manager that starts a
// shim, calls it, receives its events and holds the client ends of its FIFOs.
//
// The debug client and the tests are built on it. It imitates several releases of containerd as
// exactly as a shim can see it (contract sections 1.3 to 1.5, 2.2, 2.3, 7.2, 8.6, 16), and can
// misbehave on demand where a manager may: not answer, hang up, or be away for a while.
//
// What a function returns belongs to the caller: Shim, Events, IO and Log each have a Close that
// joins every goroutine they started. The package makes no temporary directories and removes no
// files it was not told about; it never ends a process other than by the context of the call
// that started it.
//
// It is not part of the shim and makes no use of internal/reaper: it starts processes with
// os/exec.
package client

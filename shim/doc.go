// Package shim is the edge between a container manager and the containers of one group: it is
// what the binary containerd-shim-holdfast-v2 does, whichever way it is run.
//
// The binary is run in four ways, told apart by its first argument that is not a flag:
//
//	start     the manager wants a daemon for a container: one is found or started, its address is
//	          written to stdout, and nothing else is written anywhere
//	(none)    the daemon itself, started by start: it serves the task API on descriptor 3
//	delete    the daemon is gone: what it left of one container is removed
//	-info, features, -v   tell what this shim and its runtime can do, and end
//
// start and the daemon share nothing but a listening socket, a few environment variables and a
// pipe on which start says that it has answered; a daemon whose start died before that goes away
// by itself. delete needs neither of them, only the files of the bundle.
//
// The package owns the socket, the files runtime, options.json and address in the bundle, and the
// order of events towards the manager. It does not know how a container is run, that is package
// process, nor how a runtime is called, that is package runc.
package shim

// Package process is what a container is, may do and has done.
//
// Three rules carry all of its concurrency.
//
//  1. The kernel keeps an exit until we ask for it. Package reaper asks by pid, and never while
//     a runtime command may still tell us a pid; so exits cannot be lost or mixed up.
//  2. One turn per process. A process has a turn; who holds it may change the state and append
//     the event that tells of the change, nobody else may. An exit is a change of state, so it
//     waits for its turn too. Start before exit is the order in which the turn was taken.
//  3. One life per process. One goroutine per live process lasts from its birth to its logged
//     exit, and its straight-line code is the order that is promised: wait for the child, join
//     the OOM watch, record the exit, kill what is left, wait for the execs, log the exit.
//
// Three words are our own. The turn is the right to change a process. The life is its
// goroutine. The gate counts the execs that live in a container, and can be closed for good:
// from then on no exec starts, and when it is empty every exec that did start has logged its
// exit.
//
// Locks guard a few fields for a few instructions; none is held over a call that may block. State,
// Wait, Pids, Stats and Kill take no turn, so they answer while a runtime command hangs.
//
// What each state allows is data: see initTable, restoreTable and execTable. A container owns
// its rootfs mounts, its stdio, its OOM watch and its files in the bundle, and frees them in
// Delete. The package does not speak ttrpc and makes no gRPC codes; error kinds are errdefs.
package process

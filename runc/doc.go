// Package runc drives an OCI runtime by its command line: runc, and what takes the same verbs
// and flags (crun, youki, wrappers around them).
//
// The runtime's binary is executed in one place, command.go, always in the same way: global
// flags, then the verb, in the bundle, with our environment, in a process group of its own and
// with a log file of its own. A context bounds the command; when it ends, all that the command
// has begun is killed, then the command itself, and the error tells where they hung. Output of a
// command goes into an anonymous file and never into a pipe, so a hook that keeps its stderr open
// cannot hold us up.
//
// What a command leaves behind (the init process of a container, an exec process) comes to the
// caller as a [reaper.Child]; the master of its console, if it has one, as an [os.File]. Both are
// the caller's from then on. Files that a command needs (pid file, process file, console socket,
// log) live in the bundle, and are removed as soon as they have served; init.pid stays.
//
// A failure is an [Error]: a prefix that clients match, the runtime's own last error line word
// for word, and a kind where the words are known (wording.go).
//
// The package keeps no state: what a container may do next, and what an exit means, is for
// package process to know. It does not log.
package runc

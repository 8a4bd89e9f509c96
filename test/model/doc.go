// Package model is the protocol of one container's events in small: who may do what, when, and
// what follows from it, without files, processes and time. It is meant to be read. An explorer
// goes through everything that can happen, in every order, and looks at each moment on the way.
//
// These are the actors, one file each:
//
//   - the manager asks for anything at any time, and some things twice (manager.go, delete.go);
//   - the kernel lets processes die at any time, and the reaper buries them (kernel.go);
//   - the shim answers (the same files as the manager), and gives each process a life that waits
//     for its exit and does everything that follows from it (lives.go);
//   - the event log has one queue and one sender, whose attempts may fail (history.go).
//
// Three things keep them from each other's throats: the turn of a process, which one operation at a
// time holds; the gate, which lets no exec in once the init process is dead; and the order in which
// a life takes its steps. Each rule of that has a name (rules.go) and can be suspended, so that it
// can be shown what it is good for: without any one of them the explorer finds a history that
// breaks a promise (TestEveryRuleIsNeeded).
//
// The promises (promises.go) are those of package order for the events, as the manager gets them;
// that the exit of the init process is on disk before anybody can see it, and in the log before
// waiters wake; that nobody waits for ever, nothing is left, and from everywhere there is a way to
// the end.
//
// There is one exec, which stands for all, and nobody pauses. What takes time is a choice here: a
// runtime command may end well, fail, or hang until its limit.
package model

// Package oom notices when the kernel kills a process of a container for want of memory.
//
// A Watch holds the kernel's own counter open from the creation of the container on, so that
// what it last said is known even if the group vanishes together with its last process, as
// systemd's scopes do. In version 2 of cgroups the counter, memory.events, wakes whoever polls it;
// in version 1 an eventfd tells that memory ran out, and memory.oom_control whether somebody was
// killed for it. Both wait on Go's poller: a Watch costs a goroutine and one or two descriptors (two
// goroutines for a scope), no thread, and none of the few inotify instances that a node has.
//
// What counts is oom_kill, not oom: with a limit on the pod, oom rises there, while oom_kill rises
// in the container that lost a process (contract 9). Whose limit it was is told by the groups above: in
// version 2 by where oom rose, in version 1 by eventfds for those that have a limit.
//
// The life of the container owns the Watch: it calls Close when the init process has been reaped,
// and whatever was killed has been reported when Close returns. The package does not know what a
// report is turned into.
package oom

// Package reaper starts processes and collects the exits of all that are ours.
//
// The kernel keeps a dead child, its pid and its status until its parent waits for it. The
// package rests on that: a child is waited for by pid once its pid is known, and children
// without a name are waited for only while no birth is under way, a birth being the stretch
// from starting a command that may leave us a child to knowing that child's pid. So an exit can
// be neither lost nor given to the wrong child, however early it comes.
//
// There is one registry for the OS process, because the kernel has one table of children for
// it. No other package may call wait4, or os/exec, whose Wait would race with ours.
//
// The package does not know what a container is, and does not decide what to do about an exit.
package reaper

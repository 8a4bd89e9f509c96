// Package node finds the containerd shims of a machine, ours and other people's, and what they have
// left behind: from the process table, the sockets that those processes listen on, the directories
// where sockets are, and the bundles of the managers.
//
// It reads /proc and files, and nothing else: no socket is connected to, no process is started or
// signalled, nothing is written. So what it finds is a picture of one moment, of which each part may
// have been taken a little later than the one before; a process that ends meanwhile is left out, and
// none of this is an error. A Leak is therefore a suspicion. Who wants to remove something proves
// first, and only then, that it is dead: Living helps with that.
//
// The package is not linked into the shim.
package node

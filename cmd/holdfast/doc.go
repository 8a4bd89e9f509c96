// Command holdfast runs containers through a shim without any manager, and asks running shims.
//
//	holdfast run                               a container that greets, and its events
//	holdfast run -t                            a shell in a container
//	holdfast run BUNDLE                        the container of an OCI bundle
//	holdfast state --address unix://… ID       what a shim says of a container
//
// `holdfast -h` lists the verbs, `holdfast VERB -h` explains one. Each verb is one row of a table.
//
// `run` takes the part of containerd: it serves events, starts the shim, creates, starts, waits
// for and deletes the container, shuts the shim down and runs its delete action. All of it happens
// in a directory of its own, which it removes: a bundle is only read. The container's output goes
// to standard output, everything about it to standard error.
//
// Exit status: that of the container or exec process for run and exec; 0 for other verbs; 125 if
// holdfast itself cannot do what it was asked, 2 if it does not understand what that is.
package main

// Command bench measures our shim beside containerd's own, on the same machine at the same time.
//
// The two take turns, life by life, so that whatever else the machine does meets both. A life is
// what containerd does with a container that runs `true`: the start action, create, start, the
// exit, delete, shutdown and the delete action, with nobody in between but the client of package
// client. Then one container of each is left idle, and the kernel is asked what its shim holds.
//
//	bench -ours SHIM -theirs SHIM [-n LIVES] [-idle TIME]
//
// Medians are printed, and for the times the 90th percentile. The ratio is ours to theirs: less
// than 1 is better.
package main

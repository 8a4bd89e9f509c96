// Command bench measures our shim beside containerd's own, on the same machine at the same time.
//
// The two take turns, so that whatever else the machine does meets both. It measures
//
//   - lives: what containerd does with a container that runs `true`: the start action, create,
//     start, the exit, delete, shutdown and the delete action, with nobody in between but the client
//     of package client;
//   - idle: what a shim holds, by the kernel's account, while its container is left alone;
//   - stdio: how fast output passes from a container to a client, what CPU time that costs the
//     shim, how long the echo of a line takes, and what the shim holds for each stream. Bare is the
//     third side of it: the same programs with nothing but a FIFO, a terminal, a file or a pipe
//     between them. The targets are printed with what became of them.
//
// Usage:
//
//	bench -ours SHIM -theirs SHIM [-only PART,...] [-n LIVES] [-idle TIME]
//
// Medians are printed, and for times the 90th or 99th percentile. A ratio is ours to theirs, or
// to bare; for stdio it is the median of the ratios of rounds that were measured one after the
// other, and need not be the ratio of the medians. The writer in the container is this binary, the
// reader the same code for every side: both read and write a MiB at once.
//
// The CPU time of a shim is its process's CPU clock, which counts nanoseconds and all threads. The
// ticks in /proc/PID/stat are 10 ms, which is more than a shim that does not copy uses in a whole
// run.
package main

// Command bench measures our shim beside containerd's own, on the same machine at the same time.
//
// All sides take turns, and who goes first changes, so that whatever else the machine does meets all
// of them. Nobody is in between but the client of package client, which does what containerd does. Bare
// is the side without a shim: the same runtime, called by this program with the arguments that a shim
// uses, and so the floor below which no shim gets. It measures
//
//   - size: of the binaries;
//   - lives: a container that runs `true`, from the start action to the delete action. Start is taken
//     until the action has ended, and until the daemon has answered a first call. What the shim adds to
//     bare counts from then on: create, start, exit, delete, the end of the daemon, the delete action,
//     less create, start, exit and delete of bare. In lives of their own the CPU time is measured;
//   - execs: of `true`, from Exec to Delete, alone and ten at once, and the CPU time that the daemon uses
//     for one. Bare is the runtime's exec as a shim calls it, detached, until the process has ended;
//   - kills: from the call of Kill, SIGKILL for a container that sleeps, to its TaskExit at the events
//     server, which is this program. Each has a shim of its own and is killed after its TaskStart has come;
//   - load: Stats and State, one question after the other with pauses of 5 ms, while four clients run
//     execs on the same shim. The rate of these is printed too: a shim that does less for others has it
//     easier to answer. Who asks is a process of its own, of one thread, that goes before all others
//     (SCHED_FIFO), over a connection of its own: a client that has to wait for a CPU itself makes all sides alike;
//   - clients: State, asked by 1 to 16 clients at once, each over a connection of its own, without pauses.
//     It prints a table of its own: it is for the picture;
//   - idle: what a shim holds, by the kernel's account, while its container is left alone: at first, and
//     after execs of `true`, one after the other. Of each side there are three, and the median counts;
//   - crowd: the memory of many shims, each with a container that is left alone;
//   - stdio: how fast output passes from a container to a client, what CPU time that costs the
//     shim, how long the echo of a line takes, and what the shim holds for each stream. Bare is here
//     the same programs with nothing but a FIFO, a terminal, a file or a pipe between them. It prints
//     tables of its own; the rows of the one table are ratios, computed round by round. Some cannot be
//     measured where criu is installed: our shim gives a first process a pipe there.
//
// Usage:
//
//	bench -ours SHIM -theirs SHIM [-peers NAME=SHIM,...] [-only PART,...] [-runtime RUNTIME]
//		[-quick] [-n LIVES] [-idle TIME] [-out FILE] [-plots DIR]
//
// # Rows
//
// A value is the median of its samples, or the quantile that its row names. "Added" is the median of
// the differences to bare, round by round, and need not be the difference of the medians. The ratio is
// ours to theirs, of values, not of samples; for stdio it is the median of the ratios of rounds that
// were measured one after the other. A target is about the ratio, or about our value itself. With -out
// all samples are written to a file, in the order in which they were taken, for whoever wants another
// judgement.
//
// # Pictures
//
// With -plots three pictures are drawn, in SVG, of what the chosen parts have measured: memory over
// containers (crowd, which then pauses at 1, 2, 5, 10, 20, … containers too), latency over clients
// (clients), throughput over mode (stdio). Their scales begin at 0. The same values give the same bytes.
//
// # Why it can be trusted, and what may go wrong
//
// Bundles, and the state of runtimes, are in memory if /run or /dev/shm is, as on a usual host; the first
// lines of the output tell. Lives before the first that counts read programs from disk. All sides
// get the same environment, with the GOMAXPROCS that containerd sets, and shims the same options.
//
// The CPU time of a shim is its process's CPU clock, which counts nanoseconds and all threads, but no
// runtime. For a whole life it is that of three processes, start, daemon and delete, each read when the
// process has ended but has not been waited for: until then its clock is there. The ticks in
// /proc/PID/stat are 10 ms, which is more than a shim that does not copy uses in a whole run.
//
// Memory is that in /proc/PID/smaps_rollup. Pages of a binary that has just been built count as private
// and dirty until they are on disk; therefore the binaries are synced first. Theirs returns memory to the
// kernel half a minute after it has become idle: a comparison before that, as with -quick, is unfair
// to it.
//
// Context switches are those of all threads of a process, voluntary or not, in /proc/PID/task/*/status.
// A thread that ends meanwhile takes its count along; the number may then even be negative.
//
// A machine with other load makes every time longer, and what is added to bare, which is a difference,
// uncertain or even negative. Believe a run in which a peer that is a copy of another shim has the same
// figures as that (-peers copy=PATH).
//
// Ten execs at once are ten runtimes at once only for bare. A shim may start a few at a time and so be
// faster than bare on few CPUs; if theirs adds nothing, there is no ratio.
//
// With -quick the run ends after 100 seconds, and prints what there is by then.
//
// For stdio the writer in the container is this binary, the reader the same code for every side: both
// read and write a MiB at once.
package main

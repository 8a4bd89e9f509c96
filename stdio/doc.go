// Package stdio connects the standard streams of a process with what the client named for them.
//
// Each stream is on its own. What its string names decides who holds which end, and whether the
// shim has to carry bytes at all; the cheapest copy is none:
//
//	string          mode     the process holds         the shim holds                   carries bytes
//	""              null     /dev/null                 nothing                          no
//	FIFO            direct   the FIFO itself           both ends of it, until the exit  no
//	FIFO            relay    one end of a pipe         the other, and the FIFO          splice(2)
//	another file    relay    one end of a pipe         the other, and the file          read, write
//	file://         file     the O_APPEND file itself  nothing                          no
//	file://, limits relay    one end of a pipe         the other, and the file          read, write
//	binary://       logger   a pipe to the logger      the logger's ends of its pipes   no
//	binary-v2://    logger   a pipe to the logger      the logger's ends of its pipes   no
//	any, terminal   console  the slave of a pty        its master, and the sink         read, write
//
// FIFOs and other files are named by an absolute path, or by fifo:// and that path. Direct is for
// those who ask for it: what the process holds itself cannot be cut off while somebody holds it.
// A log named for stdout alone is for both streams. With a terminal there is one stream of
// output, the string of stderr is ignored, and a logger finds its second pipe ended.
//
// A FIFO belongs to the client, which makes it and may come and go. The shim holds both ends of
// it: opening never waits, writers get no SIGPIPE, readers no early end, and what was written
// stays there while nobody reads. So a client that never comes delays nobody. The shim lets go of
// an output FIFO as soon as the last writer is gone, since clients wait for that end before they
// delete (contract 7.2). If no client has the FIFO open then, the writer stays for the client to
// find, with the last words, until Close. Stdin's FIFO is let go with CloseStdin.
//
// While no manager is there, and a FIFO for output is about to be full, the shim makes it larger,
// so that the process need not wait for its reader: see Presence and Room. A relay and a console
// gain by it too, since they pass on into the same FIFO.
//
// A relay is one goroutine. It sleeps on Go's poller, owns its ends and alone closes them; whoever
// wants it to end earlier sets a deadline. It ends at the end of its source: for a pipe when all
// holders of the other end are gone, for a pty when it is hung up and the process has exited. A
// process may leave children behind that hold its streams: they are cut 10 s after its exit.
//
// A log file with limits is rotated: both streams come by one pipe to one relay, so no line is broken
// by another or by the rotation.
//
// A logger is a child of the shim, so that it outlives the manager. One that ends before its pipes
// do is started again, at growing intervals; meanwhile the pipes keep what is written, and grow as a
// FIFO does without a manager. It may stop reading when it hears of the exit, and has to when Close
// sends SIGTERM; so Drained waits, for as long as for relays, until it has read what is in its pipes.
//
// The package does not know what the process is, runs no runtime, and writes no log format.
package stdio

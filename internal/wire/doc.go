// Package wire reads and writes the wire format of protocol buffers, for messages that are plain Go
// structs.
//
// The structs are those of package api. Their code is generated and straightforward: there is no
// description of messages at run time, no registry, no reflection, and nothing to do before main. The
// usual library needs 0.4 MiB of memory for that, in each shim (docs/decisions/0006).
//
// A Message is a proto.Message too, for ttrpc: the library finds in it that it can marshal and
// unmarshal itself. What else the library could do with a message, such as printing it, it cannot do
// with these.
package wire

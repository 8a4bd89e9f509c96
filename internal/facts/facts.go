// Package facts is what a shim tells of itself to who looks into it: the answers of the service
// holdfast.debug.v1.Debug, which the shim serves beside the task service.
//
// An answer is a google.protobuf.Any whose type names it and whose value is JSON, or text: it is for
// people and their tools, may grow from version to version, and costs the shim nothing until somebody
// asks (docs/decisions/0008).
package facts

import (
	"strconv"
	"time"
)

// Service is the name of the service. Each method takes a google.protobuf.Any, which is empty but for MethodEvents.
const Service = "holdfast.debug.v1.Debug"

// The methods of the service, which are also the types of their answers.
const (
	MethodFacts  = "Facts"  // JSON of Facts
	MethodStacks = "Stacks" // what every goroutine does, as Go writes it
	// MethodEvents is answered when Revision is no longer the number, in decimal, that the request has for its value,
	// or when the shim ends: JSON of Facts, of which only Events, Revision and Last are set.
	MethodEvents = "Events"
)

// TypeURL is the type of the answer of a method.
func TypeURL(method string) string { return "holdfast.debug.v1." + method }

// Facts is what a shim knows of itself.
type Facts struct {
	Version   string    `json:"version"`
	Pid       int       `json:"pid"`
	Namespace string    `json:"namespace"`
	Began     time.Time `json:"began"`
	// Requests are under way, in no order. Those of this service are not among them.
	Requests []Request `json:"requests"`
	// Containers are in no order. Those that are being created have only an ID.
	Containers []Container `json:"containers"`
	// Events are the last 64 that the manager has taken, and all that wait for it, the oldest first.
	Events []Event `json:"events"`
	// Revision counts what happened to them: one was logged, or the manager has answered to one.
	Revision uint64 `json:"revision"`
	// Last tells that nothing more will, as far as this shim can tell anybody.
	Last bool `json:"last,omitempty"`
	// Steps are the last that were done, the oldest first.
	Steps []Step `json:"steps"`
}

// Waiting returns the events that the manager has not taken, the oldest first.
func (f Facts) Waiting() []Event {
	for i, e := range f.Events {
		if e.Taken.IsZero() {
			return f.Events[i:]
		}
	}
	return nil
}

// Request is a call that has not been answered.
type Request struct {
	Op    string    `json:"op"` // the method
	ID    string    `json:"id,omitempty"`
	Exec  string    `json:"exec,omitempty"`
	Since time.Time `json:"since"`
}

// Container is a container and its processes.
type Container struct {
	ID     string    `json:"id"`
	Bundle string    `json:"bundle,omitempty"`
	State  string    `json:"state,omitempty"` // of its init process
	Pid    int       `json:"pid,omitempty"`
	Turn   *Turn     `json:"turn,omitempty"` // of its init process
	Execs  []Process `json:"execs,omitempty"`
}

// Process is an exec process.
type Process struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Pid   int    `json:"pid,omitempty"`
	Turn  *Turn  `json:"turn,omitempty"`
}

// Turn is the operation that is changing a process, which others have to wait for. It goes on when
// who asked for it has given up.
type Turn struct {
	Op    string    `json:"op"`
	Since time.Time `json:"since"`
}

// Event is one that the shim has logged.
type Event struct {
	Topic string    `json:"topic"`
	At    time.Time `json:"at"`
	// Taken is when the manager acknowledged or, if Refused, refused it; zero as long as it has not.
	Taken   time.Time `json:"taken,omitzero"`
	Refused bool      `json:"refused,omitempty"`
	// Type and Value are the event itself, a message of containerd.events.
	Type  string `json:"type"`
	Value []byte `json:"value"`
}

// Step is a point that an operation has reached, or a span: something that took a while
// (internal/recorder).
type Step struct {
	At   time.Time `json:"at"`           // a span began then
	ID   string    `json:"id,omitempty"` // of the container; empty: the shim as a whole
	Exec string    `json:"exec,omitempty"`
	// Op is what a step belongs to, create for example. Of a span it is runtime, a command of which What
	// is the verb, or wait, for another operation on the same process, and What is the one that waited.
	Op     string        `json:"op"`
	N      int           `json:"n,omitempty"` // counted from 1 within Op; 0 for a span
	What   string        `json:"what"`
	Took   time.Duration `json:"took,omitempty"` // ns; of a span
	Failed bool          `json:"failed,omitempty"`
}

// String tells what was done, in a few words.
func (s Step) String() string {
	switch {
	case s.N > 0:
		return s.Op + "-" + strconv.Itoa(s.N) + " " + s.What
	case s.Failed:
		return s.Op + " " + s.What + " failed after " + s.Took.String()
	}
	return s.Op + " " + s.What + " took " + s.Took.String()
}

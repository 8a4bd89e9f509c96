// Package facts is what a shim tells of itself to who looks into it: the answers of the service
// holdfast.debug.v1.Debug, which the shim serves beside the task service.
//
// An answer is a google.protobuf.Any whose type names it and whose value is JSON, or text: it is for
// people and their tools, may grow from version to version, and costs the shim nothing until somebody
// asks (docs/decisions/0008).
package facts

import "time"

// Service is the name of the service. Each method takes an empty google.protobuf.Any.
const Service = "holdfast.debug.v1.Debug"

// The methods of the service, which are also the types of their answers.
const (
	MethodFacts  = "Facts"  // JSON of Facts
	MethodStacks = "Stacks" // what every goroutine does, as Go writes it
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
	// Events wait for the manager, the oldest first.
	Events []Event `json:"events"`
	// Steps are the last that were done, the oldest first.
	Steps []Step `json:"steps"`
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
	Execs  []Process `json:"execs,omitempty"`
}

// Process is an exec process.
type Process struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Pid   int    `json:"pid,omitempty"`
}

// Event is one that the manager has not taken.
type Event struct {
	Topic string    `json:"topic"`
	At    time.Time `json:"at"`
}

// Step is a point that an operation has reached (internal/recorder).
type Step struct {
	At   time.Time `json:"at"`
	ID   string    `json:"id,omitempty"` // of the container; empty: the shim as a whole
	Exec string    `json:"exec,omitempty"`
	Op   string    `json:"op"` // what it belongs to, create for example
	N    int       `json:"n"`  // counted from 1 within that
	What string    `json:"what"`
}

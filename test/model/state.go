package model

// state is one moment. It holds no pointers, so that moments can be compared.
type state struct {
	world world

	init, exec process

	oom       stage // of the report that something was killed for want of memory
	shut      bool  // the gate
	inside    int8  // execs that the gate counts
	abandoned bool  // no exec may be added any more

	// What the manager has asked for, and how far the shim is with it.
	create, start, add, startExec stage
	deletes, execDeletes          [2]stage

	initLife, execLife stage

	queue, wire history // what waits for the manager, and what it has got

	fault fault // what a step has just broken; others are broken by how things are
}

// world is what there is beside the container. All of it at once would be too much to go through, and
// an OOM kill and an exec have nothing to do with each other.
type world uint8

const (
	withExec world = iota + 1
	withOOM
)

// process is what there is twice, for init and exec.
type process struct {
	body   body
	named  bool // its pid is known to the reaper, which keeps its exit
	status status
	turn   bool // somebody has it
	kill   stage

	recorded bool // how it ended is on disk
	done     bool // the exit can be seen: Wait returns, whenever it was asked for
}

// body is the process itself.
type body uint8

const (
	unborn body = iota
	alive
	killed // alive, but not for long
	zombie
	reaped
	lost // reaped by somebody who did not know whose exit it was
)

func (b body) lives() bool { return b == alive || b == killed }

// status is what the tables of states know.
type status uint8

const (
	absent status = iota
	created
	running
	stopped
	failed // an exec that did not start, and never will
	deleted
)

// stage is how far somebody is. Each has but a few of them, in the order of its own.
type stage uint8

const (
	idle    stage = iota
	asks          // waits for the turn
	joined        // waits for another Delete
	kills         // kills what stands in the way
	awaits        // waits until that is gone
	enters        // at the gate
	runs          // the runtime runs
	hangs         // the runtime hangs
	looks         // at the gate, again
	closes        // the OOM watch
	records       // the exit on disk
	changes       // the status
	logs          // the event
	begins        // a life
	wakes         // waiters
	leaves        // the gate, or waits until all others have
	gives         // up what can never happen any more
	over          // answered, or ended
)

// busy tells whether somebody has begun and not ended.
func (s stage) busy() bool { return s != idle && s != over }

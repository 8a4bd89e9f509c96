package shim

import (
	"holdfast/internal/api"
	"holdfast/internal/wire"
)

// crowd is how many events may wait until those that say nothing new are left out. So many do not
// come together while a manager is away, since then nobody starts anything; only while one asks for
// much and takes no events.
const crowd = 4096

// compact returns the events that are to be sent, in their order: without the births of execs whose
// exits wait as well, and without pauses that are over. All others stay, exits and OOMs above all. The
// first one stays in any case: it may be on its way.
func compact(queue []*api.Envelope) []*api.Envelope {
	drop := map[int]bool{}
	exited := map[[2]string]bool{} // execs whose exit comes later
	resumed := map[string]int{}    // containers, and where they are resumed later
	for i := len(queue) - 1; i > 0; i-- {
		switch e := decode(queue[i]).(type) {
		case *api.TaskExit:
			exited[[2]string{e.ContainerID, e.ID}] = true
		case *api.TaskExecStarted:
			drop[i] = exited[[2]string{e.ContainerID, e.ExecID}]
		case *api.TaskExecAdded:
			key := [2]string{e.ContainerID, e.ExecID}
			drop[i] = exited[key]
			delete(exited, key) // what is before it has the same id only
		case *api.TaskResumed:
			resumed[e.ContainerID] = i
		case *api.TaskPaused:
			if end, over := resumed[e.ContainerID]; over {
				drop[i], drop[end] = true, true
			}
			delete(resumed, e.ContainerID)
		}
	}
	kept := make([]*api.Envelope, 0, len(queue))
	for i, e := range queue {
		if !drop[i] {
			kept = append(kept, e)
		}
	}
	return kept
}

// decode returns what compact has to look into, or nil.
func decode(e *api.Envelope) wire.Message {
	var m wire.Message
	switch e.GetTopic() {
	case "/tasks/exit":
		m = new(api.TaskExit)
	case "/tasks/exec-added":
		m = new(api.TaskExecAdded)
	case "/tasks/exec-started":
		m = new(api.TaskExecStarted)
	case "/tasks/paused":
		m = new(api.TaskPaused)
	case "/tasks/resumed":
		m = new(api.TaskResumed)
	default:
		return nil
	}
	if wire.Unmarshal(e.GetEvent().GetValue(), m) != nil {
		return nil // it is ours, so this cannot be; it stays
	}
	return m
}

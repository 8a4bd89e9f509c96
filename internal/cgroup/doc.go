// Package cgroup finds the control group of a container and works on it: statistics, the list
// of its processes, signals to all of them.
//
// It serves the three layouts that hosts have: version 1 (one hierarchy for each controller or
// few of them), hybrid (the same, with a version 2 hierarchy beside it that has no controllers
// of weight) and version 2 alone, called unified here. Everything is read from and written to
// cgroupfs directly: no process is started and no lock is taken, so that no state of the
// container and no stuck command of the runtime can keep an answer back.
//
// A Group remembers paths and the identity of the directories behind them, and needs no closing:
// only to whom asks for statistics again and again it keeps the files open meanwhile. A group that
// was removed stays gone for it (ErrGone), even when another one is made under the same name.
//
// Only groups that belong to the container alone count as its own: not the root of a hierarchy,
// and no group that this process is in as well. What a container shares with others is never
// counted, listed, frozen or killed through this package (ErrShared).
//
// The package creates and removes no groups and sets no limits: that is the runtime's job.
package cgroup

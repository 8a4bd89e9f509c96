// Package recorder remembers the last steps of a daemon, for the case that something goes wrong.
//
// Each operation on a container is a row of numbered steps, and between two of them the daemon can
// be killed. So the steps are also the points at which tests kill it: a program that is built with
// the tag failpoints stops at those that HOLDFAST_FAILPOINTS names. Others do not know the variable,
// and pay nothing for it.
//
// The package owns a few hundred short records and writes no log.
package recorder

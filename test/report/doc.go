// Command report reads `go test -json` and prints what a person wants to see of it: go test's own
// line for each package, all output of what failed, and the reason of every skip.
//
// It fails when go test did, and when a test was skipped that the list of permitted skips does not
// name: a suite that skips in silence proves less than it seems to.
//
//	go test -json ./... | report SKIPS
//
// A line of SKIPS is a test, "package.TestName", and the reason why it may be skipped. Lines that
// are empty or begin with # are ignored.
package main

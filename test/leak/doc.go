// Package leak finds what a test leaves behind.
//
// Check is called at the start of a test and compares, when all clean-up is done, the process of
// the test with what it was: goroutines, open descriptors, children. What lives elsewhere has to
// be named: shims by pid, directories in which no mount, socket, file or cgroup may be left.
//
// What needs a moment to go is given one, see Within. The findings name what was left, so that
// the test need not be run again to learn it.
//
// The package looks at whole processes: a test that calls Check must not run beside others in the
// same process (testing.T.Parallel). It neither ends nor removes anything.
package leak

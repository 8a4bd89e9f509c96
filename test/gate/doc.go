// Package gate holds what a shim may cost while nothing happens: memory, threads, descriptors, and
// the size of its file. What is linked into it is bounded in holdfast/test.
//
// The bounds are figures of our own, not ratios, and no times, so that they hold on a busy machine
// too. Each is a little above what is measured; who makes a figure smaller lowers its bound, and who
// has to raise one says in the commit what the price buys. What things cost beside containerd's own
// shim is measured by holdfast/test/bench.
//
// Nothing here may be imported; all code is in test files.
package gate

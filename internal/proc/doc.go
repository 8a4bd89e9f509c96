// Package proc reads of /proc who a process is, who its kin are and what it waits for.
//
// What it tells was true a moment ago. Only Signal is sure: it reaches the process that was read, or
// none. The package starts and reaps nothing.
package proc

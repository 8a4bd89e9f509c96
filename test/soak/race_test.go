//go:build race

package soak

// raced says that the test looks for data races, so that the shim does too.
const raced = true

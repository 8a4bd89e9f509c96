// Package test holds the whole tree to its own rules: who imports whom, how long a file and a
// function may be, what is linked into the shim, that a build can be reproduced, and that the documents
// name what is there and their commands work.
//
// The directories below it hold the outside views: checkers and programs for tests, and the tests
// that run the finished binary. No product package may import any of them.
package test

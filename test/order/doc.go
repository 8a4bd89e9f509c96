// Package order checks that the events of a shim come in the order that containerd's clients rely
// on (contract section 8.2, README of containerd's runtime v2).
//
// The rules are written down once, here; every test that has a log of events calls Verify. A rule
// is about what may be seen from outside. So a history is judged without knowing what was asked of
// the shim, and may be one that a shim wrote, or one that a test of its parts put together.
//
// Events of different containers are independent, and so are the lives of one id: after its
// deletion an id may be created, or an exec id added, again.
package order

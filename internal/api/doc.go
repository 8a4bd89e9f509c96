// Package api has the messages that a shim exchanges with its manager and its client: those of
// containerd's task API with their options, events and bootstrap parameters.
//
// They have the names and fields of those in github.com/containerd/containerd/api, of which they are
// made by go generate, but not the means to describe themselves, which a shim does not need and every
// one would pay for: see package wire. The tests compare the two byte by byte.
package api

//go:generate go run -tags no_grpc holdfast/internal/api/generate

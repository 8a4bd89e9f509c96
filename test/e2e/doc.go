// Package e2e drives the shim the way its users do: through containerd and ctr.
//
// It is a module of its own, since containerd must not become a dependency of the product. The
// tests start private containerds (own root, state, socket and namespace) of two versions, Debian
// 12's 1.6 and the one in go.mod, built by ../build-containerd, and speak to them with the ctr of
// the same version. Every test ends by checking that nothing is left: no process, mount, socket,
// bundle or cgroup.
//
// Nothing here may be imported; all code is in test files.
package e2e

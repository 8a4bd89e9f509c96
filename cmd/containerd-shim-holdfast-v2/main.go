// Since Go 1.25 the runtime keeps the files of its cgroup's CPU limit open and reads them every
// second. The shim is idle for most of its life and should stay so.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command containerd-shim-holdfast-v2 is a containerd shim: it runs the containers of one pod, or
// one container, with an OCI runtime. Managers run it; see package shim for the ways they do.
package main

import (
	"os"

	"holdfast/shim"
)

func main() {
	os.Exit(shim.Main(os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

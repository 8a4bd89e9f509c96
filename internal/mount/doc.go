// Package mount mounts what a container's rootfs is made of, and unmounts it again.
//
// It reads mounts as containerd sends them (contract 6): fstab-style options, overlays with more
// layers than an option page can name, image files on loop devices, FUSE programs, mapped user
// ids. A target inside the rootfs is resolved as the container would see it, so a symlink in an
// image cannot lead out of it.
//
// The package owns nothing between two calls: what All has mounted is found again by Unmount in
// the kernel's own table, also by another process after this one was killed. All leaves nothing
// outside of the rootfs for the same reason: no temporary directory, no helper mount, and loop
// devices that free themselves.
//
// Some overlays are mounted from another working directory, on a thread that from then on has a
// working directory and a umask of its own, the same as everybody's at that moment. A program
// that uses this package must not change either afterwards.
//
// The package does not decide what to mount and does not know bundles or containers.
package mount

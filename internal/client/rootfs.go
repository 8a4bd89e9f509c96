package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// emptyDirs are the directories of a rootfs on which something is mounted or may be written.
// Read only.
var emptyDirs = []struct {
	name string
	mode os.FileMode
}{
	{"proc", 0o755}, {"sys", 0o755}, {"dev", 0o755}, {"tmp", 0o1777}, {"etc", 0o755},
	{"run", 0o755}, {"root", 0o700}, {"var", 0o755}, {"mnt", 0o755},
}

// programDirs are where a distribution keeps its programs and libraries. On most they are
// symbolic links into /usr, which is all that has to be mounted then. Read only.
var programDirs = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// makeRootfs makes the directory tree and returns the mounts that bring in the host's programs.
// It can be repeated on the same directory.
func makeRootfs(root, hostname string) ([]specs.Mount, error) {
	for _, dir := range emptyDirs {
		path := filepath.Join(root, dir.name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
		// Chmod, since the umask does not apply to it.
		if err := os.Chmod(path, fileMode(dir.mode)); err != nil {
			return nil, err
		}
	}
	var mounts []specs.Mount
	for _, name := range programDirs {
		mount, err := programDir(root, name)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, mount...)
	}
	return mounts, writeEtc(filepath.Join(root, "etc"), hostname)
}

// fileMode translates the sticky bit of chmod(1) into Go's.
func fileMode(mode os.FileMode) os.FileMode {
	if mode&0o1000 != 0 {
		return mode&0o777 | os.ModeSticky
	}
	return mode
}

// programDir brings one directory of the host into the rootfs: as the symbolic link that it is on
// the host, or as a directory to be mounted, or not at all.
func programDir(root, name string) ([]specs.Mount, error) {
	host, path := "/"+name, filepath.Join(root, name)
	info, err := os.Lstat(host)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(host)
		if err != nil {
			return nil, err
		}
		if err := os.Symlink(target, path); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		return nil, nil
	case !info.IsDir():
		return nil, fmt.Errorf("%s is no directory", host)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	return []specs.Mount{{
		Destination: host, Source: host, Type: "bind",
		Options: []string{"rbind", "ro", "nosuid", "nodev"},
	}}, nil
}

func writeEtc(dir, hostname string) error {
	files := []struct{ name, content string }{
		{"passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n" +
			"nobody:x:65534:65534:nobody:/:/bin/sh\n"},
		{"group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"},
		{"hostname", hostname + "\n"},
		{"hosts", "127.0.0.1 localhost " + hostname + "\n"},
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// systemMounts are the mounts every Linux container has. Those of the cgroup hierarchy are left
// out: they differ between hosts, and nothing here needs them.
func systemMounts() []specs.Mount {
	return []specs.Mount{
		{
			Destination: "/proc", Type: "proc", Source: "proc",
			Options: []string{"nosuid", "noexec", "nodev"},
		},
		{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
		},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
		},
		{
			Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"nosuid", "noexec", "nodev", "ro"},
		},
	}
}

// emptyTmp gives a container without files of its own a place for some.
var emptyTmp = specs.Mount{
	Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"},
}

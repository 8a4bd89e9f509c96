package stdio

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// permitted returns the program that the path of a logger means. If dirs are given it has to be
// in one of them, or below, and nobody but root may be able to put another one in its place: not
// by writing to it, nor by renaming a directory on the way. What is returned holds no symbolic
// links, so it is what was looked at.
func permitted(path string, dirs []string) (string, error) {
	if len(dirs) == 0 {
		return path, nil
	}
	program, err := filepath.EvalSymlinks(path)
	if err != nil {
		// The errno stays inside: it could be taken for "no such task".
		return "", fmt.Errorf("cannot use logger %s: %v: %w", path, err, errdefs.ErrInvalidArgument)
	}
	if !below(program, dirs) {
		return "", refused(path, "it is in none of the directories of HOLDFAST_LOGGER_DIRS;"+
			" install it there, or have its directory added")
	}
	for at := program; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return "", refused(path, err.Error())
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
			return "", refused(path, at+" is not root's alone;"+
				" have root own it, and nobody else be allowed to write to it")
		}
		if at == "/" {
			return program, nil
		}
	}
}

// below tells whether program is below one of dirs.
func below(program string, dirs []string) bool {
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil && filepath.IsAbs(dir) &&
			strings.HasPrefix(program, strings.TrimSuffix(real, "/")+"/") {
			return true
		}
	}
	return false
}

func refused(path, because string) error {
	return fmt.Errorf("cannot use logger %s: %s: %w", path, because, errdefs.ErrPermissionDenied)
}

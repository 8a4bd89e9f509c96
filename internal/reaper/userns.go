package reaper

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// UserNamespace makes a user namespace with these maps and returns it as an open file, which is
// the caller's and all that keeps the namespace alive. No process stays behind.
//
// A namespace is born with a process in it. Since this is a birth, the process cannot be reaped
// before we have opened its namespace, and a zombie still has one; so it does not matter how far
// the process comes, and it need not be held back.
func UserNamespace(uids, gids []syscall.SysProcIDMap) (*os.File, error) {
	if err := Init(); err != nil {
		return nil, err
	}
	null, err := openNull()
	if err != nil {
		return nil, err
	}
	defer unix.Close(null) //nolint:errcheck // nothing was written
	fds := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	var ns *os.File
	child, err := Adopt(func() (pid int, err error) {
		pid, ns, err = bearNamespace(fds, uids, gids)
		return pid, err
	})
	if err != nil {
		if ns != nil {
			ns.Close() //nolint:errcheck // nothing was written
		}
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	<-child.Done() // it has been killed
	return ns, nil
}

// bearNamespace starts a process in a new user namespace, opens the namespace and kills the
// process, which its caller must not have reaped before. The program is our own, because it is
// there on every host; should it come as far as main, it prints its version to nowhere and exits
// (contract 1.2).
func bearNamespace(fds []uintptr, uids, gids []syscall.SysProcIDMap) (int, *os.File, error) {
	pid, err := table.fork("/proc/self/exe", []string{"userns", "-v"}, &syscall.ProcAttr{
		Dir:   "/",
		Files: fds,
		Sys: &syscall.SysProcAttr{
			Setpgid:                    true,
			Cloneflags:                 syscall.CLONE_NEWUSER,
			UidMappings:                uids,
			GidMappings:                gids,
			GidMappingsEnableSetgroups: true,
		},
	})
	if err != nil {
		return 0, nil, err
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
	// Exact: nobody has reaped it. It must not fail, but if so the process ends by itself.
	if killErr := syscall.Kill(pid, syscall.SIGKILL); err == nil {
		err = killErr
	}
	return pid, ns, err
}

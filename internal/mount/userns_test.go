package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/internal/reaper"
)

// In a user namespace the flags of what comes from outside are locked: a remount that does not
// name them is refused, and so is unmounting.
func TestLockedFlagsAreKeptInAUserNamespace(t *testing.T) {
	root, dir := newRoot(t)
	source := filepath.Join(dir, "source")
	mkdir(t, source)
	mountAll(t, source, tmpfs("", "nosuid", "nodev", "noexec", "noatime"))
	// The namespace's root is nobody in particular here; let it come this far.
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode()&0o005 != 0o005 {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	child, err := reaper.Start(&reaper.Command{
		Path:  "unshare",
		Args:  []string{"--user", "--map-root-user", "--mount", self},
		Env:   append(os.Environ(), "MOUNT_TEST_USERNS="+root, "GORACE=atexit_sleep_ms=0"),
		Files: []*os.File{nil, output, output},
	})
	if err != nil {
		t.Skip(err)
	}
	<-child.Done()
	if _, err := output.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	if string(said) != "as it should be\n" || child.Exit().Status != 0 {
		t.Errorf("status %d: %s", child.Exit().Status, said)
	}
}

// inUserNamespace is the test binary's life in the namespace. It does not return.
func inUserNamespace(root string) {
	if err := bindAndUnmount(root, filepath.Join(filepath.Dir(root), "source")); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("as it should be")
	os.Exit(0)
}

func bindAndUnmount(root, source string) error {
	if err := All([]Mount{bind(source, "", "ro")}, root); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return err
	}
	const want = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if st.Flags&want != want {
		return fmt.Errorf("flags are %#x", st.Flags)
	}
	err := All([]Mount{bind(source, "", "ro", "exec")}, root)
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("taking back a locked flag: %w", err)
	}
	if err := Unmount(context.Background(), root); err != nil {
		return err
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	err = Unmount(ended, source)
	if err == nil || !strings.Contains(err.Error(), "parent user namespace") {
		return fmt.Errorf("unmounting what is locked: %w", err)
	}
	return nil
}

package direct

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"holdfast/internal/client"
	"holdfast/test/order"
)

// Requests of the kernel to a file system in user space, and their answers (fuse(4), linux/fuse.h).
const (
	fuseGetattr, fuseInit, fuseLookup = 3, 26, 1
	fuseHeader                        = 40
)

// blackHole is a file system that never answers what is asked of its files. Who asks sleeps
// uninterruptibly until free is called, as on a network disk whose server has gone.
func blackHole(t *testing.T, dir string) (asked <-chan struct{}, free func()) {
	t.Helper()
	hole, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0) // cannot be polled before it is mounted
	if err != nil {
		t.Skipf("no FUSE: %v", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", hole)
	if err := unix.Mount("hole", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(hole)
		t.Skipf("no FUSE: %v", err)
	}
	lookedUp, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<17)
		once := false
		for {
			n, err := unix.Read(hole, buf)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil || n < fuseHeader {
				return // unmounted
			}
			switch op := binary.NativeEndian.Uint32(buf[4:]); {
			case op == fuseInit:
				answer := make([]byte, 64)
				binary.NativeEndian.PutUint32(answer[0:], 7)
				binary.NativeEndian.PutUint32(answer[4:], 31)
				binary.NativeEndian.PutUint32(answer[20:], 4096)
				reply(hole, buf, 0, answer)
			case op == fuseGetattr:
				answer := make([]byte, 104)
				binary.NativeEndian.PutUint64(answer[16:], 1)
				binary.NativeEndian.PutUint32(answer[76:], unix.S_IFDIR|0o755)
				binary.NativeEndian.PutUint32(answer[80:], 1)
				reply(hole, buf, 0, answer)
			case op == fuseLookup && !once:
				once = true
				close(lookedUp)
			case op != fuseLookup:
				reply(hole, buf, -int32(unix.ENOSYS), nil)
			}
		}
	}()
	closed := false
	free = func() {
		if !closed {
			closed = true
			if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
			<-done
			unix.Close(hole)
		}
	}
	t.Cleanup(free)
	return lookedUp, free
}

func reply(hole int, request []byte, code int32, answer []byte) {
	out := make([]byte, 16, 16+len(answer))
	binary.NativeEndian.PutUint32(out[0:], uint32(16+len(answer)))
	binary.NativeEndian.PutUint32(out[4:], uint32(code))
	copy(out[8:16], request[8:16])
	_, _ = unix.Write(hole, append(out, answer...)) // who asked may have gone
}

// stuck is a process that waits for the hole.
func stuck(dir string) client.BundleConfig {
	return client.BundleConfig{
		Args:   []string{"/bin/cat", "/mnt/x"},
		Mounts: []specs.Mount{{Destination: "/mnt", Source: dir, Type: "bind", Options: []string{"rbind"}}},
	}
}

// A process that the kernel does not let go is named by whoever is asked to end it, with the place
// where it waits; nothing else is delayed by it (demand.md 41).
func TestProcessThatCannotDieIsNamed(t *testing.T) {
	for _, kind := range []string{"init", "exec", "all", "tree"} {
		t.Run(kind, func(t *testing.T) {
			l := newLab(t, labConfig{bundle: sleeper()})
			hole := filepath.Join(l.dir, "io", "hole") // not beside the bundles, where delete looks for others
			asked, free := blackHole(t, hole)
			p, exec := stuck(hole), ""
			if kind == "exec" || kind == "tree" {
				exec = "e1"
				init := sleeper()
				init.Mounts = p.Mounts
				l.bundleAgain("c1", init)
				l.run("c1", nil)
				l.runExec("c1", exec, p)
			} else {
				l.bundleAgain("c1", p)
				l.run("c1", nil)
			}
			<-asked
			_, err := l.Kill(within(t), &task.KillRequest{
				ID: "c1", ExecID: exec, Signal: 9, All: kind == "all" || kind == "tree",
			})
			is(t, "kill", err, errdefs.ErrUnavailable)
			if err != nil && !strings.Contains(err.Error(), "(cat) in state D at ") {
				t.Errorf("kill: %v", err)
			}
			l.promptly("State", func(ctx context.Context) error {
				_, err := l.State(ctx, &task.StateRequest{ID: "c1", ExecID: exec})
				return err
			})
			free()
			if got := l.wait("c1", exec); got != 137 {
				t.Errorf("exit status %d", got)
			}
			l.mustDelete("c1", exec)
			if exec != "" {
				l.finish("c1")
			}
		})
	}
}

// The delete action names it too, in the time that it has.
func TestDeleteActionNamesWhatCannotDie(t *testing.T) {
	l := newLab(t, labConfig{bundle: sleeper(), relax: []order.Option{order.EndsInMiddle}})
	hole := filepath.Join(l.dir, "io", "hole") // not beside the bundles, where delete looks for others
	asked, free := blackHole(t, hole)
	l.bundleAgain("c1", stuck(hole))
	l.run("c1", nil)
	<-asked
	l.crash()
	began := time.Now()
	_, warnings, err := client.Delete(context.Background(), l.Config)
	if err != nil || !strings.Contains(warnings, "(cat) in state D at ") {
		t.Errorf("the delete action: %v; it says %q", err, warnings)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	free()
	l.eventually("nothing is left to delete", func() bool {
		_, warnings, err := client.Delete(context.Background(), l.Config)
		return err == nil && warnings == ""
	})
	l.Close()
}

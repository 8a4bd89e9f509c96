package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// most is how many bytes a container may write while nobody reads: half of the largest pipe that the
// kernel grants us, up to 32 MiB.
func most(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for size := 64 << 20; size > 64<<10; size /= 2 {
		if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, size); err == nil {
			return size / 2
		}
	}
	t.Fatal("no pipe can grow")
	return 0
}

// TestOutputPilesUpWhileContainerdIsAway has a container write while there is neither containerd nor
// a client. It goes on, and whoever attaches afterwards gets all of it.
func TestOutputPilesUpWhileContainerdIsAway(t *testing.T) {
	if upstream {
		t.Skip("upstream's shim stops the container once its pipe of 64 KiB is full")
	}
	versions(t, func(t *testing.T, version string) {
		c := launch(t, version)
		const line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456 %07d\n" // 64 bytes
		lines := most(t) / 64
		script := fmt.Sprintf(`until [ -e /go ]; do sleep 0.1; done
			awk 'BEGIN { for (i = 1; i <= %d; i++) printf "%s", i }' && >/done
			until [ -e /stop ]; do sleep 0.1; done; exit 8`, lines, strings.TrimSuffix(line, "\n")+`\n`)
		id, pid := c.detached(t, []string{"--runtime", c.standard().flag, "--fifo-dir", c.dir + "/fifo"}, "sh", "-c", script)
		c.kill(t)
		touch(t, pid, "/go")
		eventually(t, func() error {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/root/done", pid))
			return err
		})
		t.Logf("it has written %d bytes while containerd was away", 64*lines)
		c.start(t)
		c.attached(t, id, func(out io.Reader) {
			reader := bufio.NewReader(out)
			for i := range lines {
				got, err := reader.ReadString('\n')
				if want := fmt.Sprintf(line, i+1); err != nil || got != want {
					t.Fatalf("line %d of %d is %q, %v", i+1, lines, got, err)
				}
			}
			touch(t, pid, "/stop")
		})
		c.ok(t, "container", "rm", id)
	})
}

// attached runs `ctr task attach`, whose output goes to use, and which has to end with 8.
func (c *containerd) attached(t *testing.T, id string, use func(io.Reader)) {
	t.Helper()
	line := c.command("task", "attach", id)
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = environment()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	use(out)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 8 {
		t.Errorf("task attach: %v, want status 8", err)
	}
}

package direct

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	options "github.com/containerd/containerd/api/types/runc/options"

	"holdfast/internal/client"
)

// outside is where the ids of a container with a user namespace begin on the host.
const outside = 100000

// inUserNamespace gives a bundle a user namespace of its own.
func inUserNamespace(spec *specs.Spec) {
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: outside, Size: 65536}}
	spec.Linux.GIDMappings = spec.Linux.UIDMappings
}

// Programs write their logs to /dev/stdout, which opens their streams anew: whoever they are, and in
// whichever way they are connected (contract T50).
func TestStreamsCanBeOpenedAnew(t *testing.T) {
	for _, row := range []struct {
		name string
		uid  uint32
		io   uint32 // IoUid and IoGid
		edit func(*specs.Spec)
	}{
		{name: "root"},
		{name: "a user", uid: 1000},
		{name: "a user, with IoUid", uid: 1000, io: 1000},
		{name: "root of a user namespace", edit: inUserNamespace},
		{name: "root of a user namespace, with IoUid", io: outside, edit: inUserNamespace},
		{name: "a user of a user namespace", uid: 1000, edit: inUserNamespace},
	} {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, terminal %v", row.name, terminal), func(t *testing.T) {
				script := "echo out >/dev/stdout && echo err >/dev/stderr && read x </dev/stdin && echo $x && stat -L -c %F /dev/stdout"
				bundle := client.BundleConfig{
					Args: []string{"/bin/sh", "-c", script}, UID: row.uid, Terminal: terminal, Edit: row.edit,
				}
				opts := &options.Options{IoUid: row.io, IoGid: row.io, BinaryName: os.Getenv(runtimeVariable)}
				l := newLab(t, labConfig{bundle: bundle, options: opts})
				l.passable("c1")
				l.reopen("c1", "", terminal, func(io *client.IO) { l.mustCreate("c1", io) })
				l.mustDelete("c1", "")

				bundle.Args = []string{"/bin/sleep", "1000"}
				bundle.Terminal = false
				l.bundleAgain("c1", bundle)
				l.passable("c1")
				l.run("c1", nil)
				exec := client.BundleConfig{Args: []string{"/bin/sh", "-c", script}, UID: row.uid, Terminal: terminal}
				l.reopen("c1", "e1", terminal, func(io *client.IO) { l.mustExec("c1", "e1", exec, io) })
				l.mustDelete("c1", "e1")
				l.finish("c1")
			})
		}
	}
}

// passable lets everybody pass through the directories of a bundle, who may be root of a namespace.
func (l *lab) passable(id string) {
	l.t.Helper()
	for _, dir := range []string{l.dir, filepath.Join(l.dir, id), filepath.Join(l.dir, id, "rootfs")} {
		if err := os.Chmod(dir, 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
}

// reopen runs a process that opens its streams anew.
func (l *lab) reopen(id, exec string, terminal bool, create func(*client.IO)) {
	l.t.Helper()
	io := l.io("p"+exec, client.IOConfig{Stdin: true, Terminal: terminal})
	create(io)
	l.mustStart(id, exec)
	if _, err := io.In.Write([]byte("hi\n")); err != nil {
		l.t.Fatal(err)
	}
	if got := l.wait(id, exec); got != 0 {
		l.t.Errorf("exit status %d", got)
	}
	want := map[bool]string{false: "out\nhi\nfifo\n", true: "hi\r\nout\r\nerr\r\nhi\r\ncharacter special file\r\n"}[terminal]
	got := l.output(io.Out)
	if terminal && len(got) == len(want) {
		got = want // what is typed may be shown before or after
	}
	if got != want {
		l.t.Errorf("stdout became %q, want %q", got, want)
	}
	if !terminal {
		if got := l.output(io.Err); got != "err\n" {
			l.t.Errorf("stderr became %q", got)
		}
	}
}

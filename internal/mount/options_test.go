package mount

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

func TestOptionsBecomeFlagsAndData(t *testing.T) {
	oneMap := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	for _, c := range []struct {
		in   string // separated by spaces
		want options
	}{
		{"", options{}},
		{"defaults", options{}},
		{"ro", options{flags: unix.MS_RDONLY}},
		{"ro rw", options{}},
		{"rw ro", options{flags: unix.MS_RDONLY}},
		{"nosuid nodev noexec", options{flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}},
		{"nosuid suid nodev dev noexec exec", options{}},
		{"bind", options{flags: unix.MS_BIND}},
		{"rbind ro", options{flags: unix.MS_BIND | unix.MS_REC | unix.MS_RDONLY}},
		{"noatime relatime", options{flags: unix.MS_RELATIME}},
		{"relatime strictatime noatime", options{flags: unix.MS_NOATIME}},
		{"noatime strictatime", options{flags: unix.MS_STRICTATIME}},
		{"noatime atime", options{}},
		{"relatime norelatime", options{}},
		{"strictatime nostrictatime", options{}},
		{"nodiratime", options{flags: unix.MS_NODIRATIME}},
		{"nodiratime diratime", options{}},
		{"sync dirsync mand", options{flags: unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_MANDLOCK}},
		{"sync async mand nomand", options{}},
		{"remount", options{flags: unix.MS_REMOUNT}},
		{"private", options{propagation: unix.MS_PRIVATE}},
		{"rshared rslave", options{propagation: unix.MS_SLAVE | unix.MS_REC}},
		{"runbindable", options{propagation: unix.MS_UNBINDABLE | unix.MS_REC}},
		{"loop direct-io", options{loop: true, directIO: true}},
		{"ro size=1m mode=0700", options{flags: unix.MS_RDONLY, data: []string{"size=1m", "mode=0700"}}},
		{`context="system_u:object_r:x_t:s0:c1,c2"`, options{data: []string{`context="system_u:object_r:x_t:s0:c1,c2"`}}},
		{"ro,noatime", options{data: []string{"ro,noatime"}}},
		{"X-other.thing", options{data: []string{"X-other.thing"}}},
		{"uidmap=0:100000:65536 gidmap=0:100000:65536", options{uids: oneMap, gids: oneMap}},
		{"uidmap=0:5:1,1:7:2 gidmap=0:100000:65536", options{
			uids: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 5, Size: 1}, {ContainerID: 1, HostID: 7, Size: 2}},
			gids: oneMap,
		}},
	} {
		t.Run(c.in, func(t *testing.T) {
			got, err := parseOptions(strings.Split(c.in, " "))
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.AllowUnexported(options{})
			rest := cmpopts.IgnoreFields(options{}, "cleared", "named")
			if diff := cmp.Diff(c.want, got, same, rest); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLastWordOnAFlagIsRemembered(t *testing.T) {
	o, err := parseOptions([]string{"nosuid", "suid", "exec", "noexec"})
	if err != nil {
		t.Fatal(err)
	}
	if o.cleared != unix.MS_NOSUID || o.flags != unix.MS_NOEXEC {
		t.Errorf("flags %#x, cleared %#x", o.flags, o.cleared)
	}
}

func TestFUSEProgramGetsOptionsThatAreNotForUs(t *testing.T) {
	o, err := parseOptions([]string{"ro", "rslave", "allow_other", "loop", "uidmap=0:1:1", "gidmap=0:1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ro", "allow_other"}, o.named); diff != "" {
		t.Error(diff)
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for _, in := range []string{
		"X-containerd.mkdir.path=/secret",
		"X-containerd.",
		"uidmap=0:1:1",
		"gidmap=0:1:1",
		"uidmap= gidmap=",
		"uidmap=0:1 gidmap=0:1:1",
		"uidmap=0:1:1:1 gidmap=0:1:1",
		"uidmap=0:1:0 gidmap=0:1:1",
		"uidmap=-1:1:1 gidmap=0:1:1",
		"uidmap=0:1:1, gidmap=0:1:1",
		"uidmap=0:4294967295:1 gidmap=0:1:1",
		"uidmap=0:99999999999:1 gidmap=0:1:1",
		"uidmap=a:b:c gidmap=0:1:1",
		"remount uidmap=0:1:1 gidmap=0:1:1",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := parseOptions(strings.Split(in, " "))
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Fatalf("error is %v", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error repeats a value: %v", err)
			}
		})
	}
}

func FuzzOptions(f *testing.F) {
	for _, s := range []string{"", "ro rw", "rbind ro rslave", "lowerdir=/a:/b upperdir=/c", "loop direct-io",
		"uidmap=0:1:2,3:4:5 gidmap=0:1:2", "uidmap=::", `context="a,b"`, "X-containerd.x=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list := strings.Split(s, " ")
		o, err := parseOptions(list)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Fatalf("error has another kind: %v", err)
			}
			return
		}
		if o.mapped() != (len(o.gids) > 0) {
			t.Fatal("half a mapping")
		}
		if o.flags&o.cleared != 0 {
			t.Fatalf("both set and cleared: %#x", o.flags&o.cleared)
		}
		for _, m := range append(o.uids, o.gids...) {
			if m.ContainerID < 0 || m.HostID < 0 || m.Size <= 0 {
				t.Fatalf("impossible mapping %+v", m)
			}
		}
		// Nothing of what the filesystem should get is lost or changed.
		rest := list
		for _, d := range o.data {
			for len(rest) > 0 && rest[0] != d {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				t.Fatalf("data %q is not in the options %q, in order", o.data, list)
			}
			rest = rest[1:]
		}
	})
}

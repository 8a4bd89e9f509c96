package mount

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// options is what the option strings of a mount ask for.
type options struct {
	flags       uintptr  // MS_… of mount(2)
	cleared     uintptr  // MS_… that an option took back, the last word being its
	propagation uintptr  // MS_SHARED … with MS_REC; 0 leaves it as it comes
	data        []string // for the filesystem itself, in order
	named       []string // what became flags or data, as given: for a FUSE program
	loop        bool     // the source is an image file
	directIO    bool     // of the loop device
	uids, gids  []syscall.SysProcIDMap
}

// mapped tells whether the mount shows other owners than the filesystem has.
func (o *options) mapped() bool { return len(o.uids) > 0 }

// atime are the flags of which the kernel heeds one; a later one replaces an earlier one.
const atime = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME

// flagOptions are the options that change flags of mount(2), as in mount(8).
var flagOptions = map[string]struct{ set, clear uintptr }{
	"async":         {0, unix.MS_SYNCHRONOUS},
	"atime":         {0, unix.MS_NOATIME},
	"bind":          {unix.MS_BIND, 0},
	"defaults":      {0, 0},
	"dev":           {0, unix.MS_NODEV},
	"diratime":      {0, unix.MS_NODIRATIME},
	"dirsync":       {unix.MS_DIRSYNC, 0},
	"exec":          {0, unix.MS_NOEXEC},
	"mand":          {unix.MS_MANDLOCK, 0},
	"noatime":       {unix.MS_NOATIME, atime &^ unix.MS_NOATIME},
	"nodev":         {unix.MS_NODEV, 0},
	"nodiratime":    {unix.MS_NODIRATIME, 0},
	"noexec":        {unix.MS_NOEXEC, 0},
	"nomand":        {0, unix.MS_MANDLOCK},
	"norelatime":    {0, unix.MS_RELATIME},
	"nostrictatime": {0, unix.MS_STRICTATIME},
	"nosuid":        {unix.MS_NOSUID, 0},
	"rbind":         {unix.MS_BIND | unix.MS_REC, 0},
	"relatime":      {unix.MS_RELATIME, atime &^ unix.MS_RELATIME},
	"remount":       {unix.MS_REMOUNT, 0},
	"ro":            {unix.MS_RDONLY, 0},
	"rw":            {0, unix.MS_RDONLY},
	"strictatime":   {unix.MS_STRICTATIME, atime &^ unix.MS_STRICTATIME},
	"suid":          {0, unix.MS_NOSUID},
	"sync":          {unix.MS_SYNCHRONOUS, 0},
}

// propagationOptions are the options that need a call of mount(2) of their own.
var propagationOptions = map[string]uintptr{
	"private":     unix.MS_PRIVATE,
	"rprivate":    unix.MS_PRIVATE | unix.MS_REC,
	"shared":      unix.MS_SHARED,
	"rshared":     unix.MS_SHARED | unix.MS_REC,
	"slave":       unix.MS_SLAVE,
	"rslave":      unix.MS_SLAVE | unix.MS_REC,
	"unbindable":  unix.MS_UNBINDABLE,
	"runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// parseOptions reads option strings, each one option; of two that contradict each other the later
// wins. What it does not know is for the filesystem, quotes and commas included. Errors have the
// kind errdefs.ErrInvalidArgument and do not repeat values, which may be secrets.
func parseOptions(list []string) (options, error) {
	var o options
	for _, s := range list {
		if err := o.add(s); err != nil {
			return options{}, err
		}
	}
	if (o.uids == nil) != (o.gids == nil) {
		return options{}, fmt.Errorf("uidmap and gidmap come in pairs, only one is given: %w", errdefs.ErrInvalidArgument)
	}
	if o.mapped() && o.flags&unix.MS_REMOUNT != 0 {
		return options{}, fmt.Errorf("a remount cannot map ids: %w", errdefs.ErrInvalidArgument)
	}
	return o, nil
}

func (o *options) add(s string) error {
	if f, ok := flagOptions[s]; ok {
		o.flags = o.flags&^f.clear | f.set
		o.cleared = o.cleared&^f.set | f.clear
		o.named = append(o.named, s)
		return nil
	}
	if p, ok := propagationOptions[s]; ok {
		o.propagation = p
		return nil
	}
	name, value, _ := strings.Cut(s, "=")
	var err error
	switch {
	case s == "":
	case s == "loop":
		o.loop = true
	case s == "direct-io":
		o.directIO = true
	case name == "uidmap":
		o.uids, err = parseIDMap(value)
	case name == "gidmap":
		o.gids, err = parseIDMap(value)
	case strings.HasPrefix(s, "X-containerd."):
		return fmt.Errorf("option %s is for containerd's mount manager, which has not processed this mount: %w", name, errdefs.ErrInvalidArgument)
	default:
		o.data = append(o.data, s)
		o.named = append(o.named, s)
	}
	if err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

// parseIDMap reads "container:host:size", several separated by commas. The first number is the
// id on the filesystem, the second the one that the mount shows.
func parseIDMap(s string) ([]syscall.SysProcIDMap, error) {
	var all []syscall.SysProcIDMap
	for entry := range strings.SplitSeq(s, ",") {
		var n [3]int
		fields := strings.Split(entry, ":")
		if len(fields) != len(n) {
			return nil, fmt.Errorf("%q is not container:host:size: %w", entry, errdefs.ErrInvalidArgument)
		}
		for i, field := range fields {
			// One less than 32 bits: the last id means "none" to the kernel.
			v, err := strconv.ParseUint(field, 10, 32)
			if err != nil || v == math.MaxUint32 {
				return nil, fmt.Errorf("%q in %q is not an id: %w", field, entry, errdefs.ErrInvalidArgument)
			}
			n[i] = int(v)
		}
		if n[2] == 0 {
			return nil, fmt.Errorf("%q maps no ids: %w", entry, errdefs.ErrInvalidArgument)
		}
		all = append(all, syscall.SysProcIDMap{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return all, nil
}

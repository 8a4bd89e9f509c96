package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A contender is a shim that is measured.
type contender struct {
	name    string
	short   string // for paths, of which those of sockets are limited
	path    string
	options *anypb.Any // the runtime, and where it keeps its state; the same for all
}

// enter adds our shim, theirs, and the peers in a list of name=path, separated by commas.
func (b *bench) enter(ours, theirs, peers string) error {
	var err error
	if b.options, err = runtimeOptions(b.runtime, filepath.Join(b.dir, "state")); err != nil {
		return err
	}
	all := []string{"ours=" + ours, "theirs=" + theirs}
	if peers != "" {
		all = append(all, strings.Split(peers, ",")...)
	}
	for _, entry := range all {
		name, path, ok := strings.Cut(entry, "=")
		if !ok || name == "" || path == "" || name == bareName || b.contends(name) {
			return fmt.Errorf("%q is not the name and the path of a shim, name=path, or not a new name", entry)
		}
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		b.shims = append(b.shims, contender{name, strconv.Itoa(len(b.shims)), path, b.options})
	}
	return nil
}

func (b *bench) contends(name string) bool {
	for _, c := range b.shims {
		if c.name == name {
			return true
		}
	}
	return false
}

// runtimeOptions are what every shim is told, as containerd would say it.
func runtimeOptions(runtime, root string) (*anypb.Any, error) {
	o := &options.Options{BinaryName: runtime, Root: root}
	value, err := proto.Marshal(o)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: string(o.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}

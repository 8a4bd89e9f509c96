// Package twin turns the messages of package api into those of containerd's module, which can describe
// themselves: for tests that print, compare or look into them.
package twin

import (
	"testing"

	_ "github.com/containerd/cgroups/v3/cgroup1/stats" // all that there are twins of
	_ "github.com/containerd/cgroups/v3/cgroup2/stats"
	_ "github.com/containerd/containerd/api/events"
	_ "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	_ "github.com/containerd/containerd/api/runtime/task/v3"
	_ "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	_ "github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	_ "google.golang.org/protobuf/types/known/emptypb"

	"holdfast/internal/wire"
)

// Empty returns the twin of an empty message of the type of m.
func Empty(t testing.TB, m wire.Message) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(m.MessageName()))
	if err != nil {
		t.Fatal(err)
	}
	return kind.New().Interface()
}

// Of returns the twin of m.
func Of(t testing.TB, m wire.Message) proto.Message {
	t.Helper()
	twin := Empty(t, m)
	if err := proto.Unmarshal(wire.Marshal(m), twin); err != nil {
		t.Fatal(err)
	}
	return twin
}

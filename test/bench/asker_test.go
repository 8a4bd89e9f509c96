package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"holdfast/internal/client"
)

// The client that has a process of its own gets an answer for each question, and takes none for one that is
// not.
func TestQuestionsAreAsked(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	const lag = 20 * time.Millisecond
	server.RegisterService("containerd.task.v3.Task", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Fast": func(context.Context, func(any) error) (any, error) { return &emptypb.Empty{}, nil },
		"Slow": func(context.Context, func(any) error) (any, error) {
			time.Sleep(lag)
			return &emptypb.Empty{}, nil
		},
		"Never": func(context.Context, func(any) error) (any, error) { return nil, errors.New("not today") },
	}})
	address := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }()
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	}()
	questions := map[string][]byte{}
	for _, method := range []string{"Fast", "Slow", "Never"} {
		if questions[method], err = question(&client.Shim{Version: 3}, method, &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{self: self, w: t.Output()}
	took, err := b.ask(t.Context(), "unix://"+address, 3, time.Millisecond, questions["Fast"], questions["Slow"])
	if err != nil || len(took) != 2 || len(took[0]) != 3 || len(took[1]) != 3 {
		t.Fatalf("got %v, %v", took, err)
	}
	for _, slow := range took[1] {
		if slow < ms(lag) {
			t.Errorf("the slow answer took %v ms", slow)
		}
	}
	if _, err := b.ask(t.Context(), address, 1, 0, questions["Never"]); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("a refusal: %v", err)
	}
}

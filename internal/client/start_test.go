package client_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"holdfast/internal/client"
	"holdfast/test/leak"
)

// fakeShim makes a bundle and, in it, a shim that writes down how it was called and then runs
// script.
func fakeShim(t *testing.T, script string) client.StartConfig {
	t.Helper()
	bundle := t.TempDir()
	binary := filepath.Join(bundle, "shim")
	text := "#!/bin/sh\necho \"$@\" >args\nenv >env\npwd >cwd\ncat >stdin\n" + script + "\n"
	if err := os.WriteFile(binary, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return client.StartConfig{
		Binary: binary, ID: "c1", Namespace: "ns", Bundle: bundle,
		Address: "/run/g.sock", TTRPCAddress: "/run/t.sock",
	}
}

func read(t *testing.T, cfg client.StartConfig, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(cfg.Bundle, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const plainAnswer = "printf unix:///run/s/abc"

func TestStartPassesWhatTheVersionPasses(t *testing.T) {
	options := &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte("\x2a\x04crun")}
	rows := []struct {
		name    string
		edit    func(*client.StartConfig)
		args    string
		env     []string // of the shim
		without []string // names of variables it must not have
		params  *bootstrap.BootstrapParams
		any     *anypb.Any
	}{
		{
			name: "2.4",
			edit: func(cfg *client.StartConfig) { cfg.Options, cfg.SocketDir, cfg.Debug = options, "/run/s", true },
			args: "-namespace ns -address /run/g.sock -publish-binary containerd -id c1 -debug start",
			env:  []string{"TTRPC_ADDRESS=/run/t.sock", "GRPC_ADDRESS=/run/g.sock", "NAMESPACE=ns", "MAX_SHIM_VERSION=2", "GOMAXPROCS=2"},
			params: &bootstrap.BootstrapParams{
				InstanceID: "c1", Namespace: "ns", ContainerdVersion: "2.4.2", LogLevel: -4,
				ContainerdTtrpcAddress: "/run/t.sock", ContainerdGrpcAddress: "/run/g.sock", ContainerdBinary: "containerd",
				Extensions: []*bootstrap.Extension{{Value: options}}, SocketDir: proto.String("/run/s"),
			},
		},
		{
			name: "2.3 without options",
			edit: func(cfg *client.StartConfig) { cfg.Containerd = "2.3.4" },
			args: "-namespace ns -address /run/g.sock -publish-binary containerd -id c1 start",
			env:  []string{"MAX_SHIM_VERSION=2"},
			params: &bootstrap.BootstrapParams{
				InstanceID: "c1", Namespace: "ns", ContainerdVersion: "2.3.4",
				ContainerdTtrpcAddress: "/run/t.sock", ContainerdGrpcAddress: "/run/g.sock", ContainerdBinary: "containerd",
			},
		},
		{
			name: "2.2",
			edit: func(cfg *client.StartConfig) {
				cfg.Legacy, cfg.Options, cfg.Env = true, options, []string{"SCHED_CORE=1"}
			},
			args: "-namespace ns -address /run/g.sock -publish-binary containerd -id c1 start",
			env:  []string{"TTRPC_ADDRESS=/run/t.sock", "GRPC_ADDRESS=/run/g.sock", "NAMESPACE=ns", "MAX_SHIM_VERSION=2", "SCHED_CORE=1"},
			any:  options,
		},
		{
			name:    "1.6 without options",
			edit:    func(cfg *client.StartConfig) { cfg.Legacy, cfg.Containerd = true, "1.6.20" },
			args:    "-namespace ns -address /run/g.sock -publish-binary containerd -id c1 start",
			env:     []string{"TTRPC_ADDRESS=/run/t.sock", "GOMAXPROCS=2"},
			without: []string{"GRPC_ADDRESS", "NAMESPACE", "MAX_SHIM_VERSION"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := fakeShim(t, plainAnswer)
			row.edit(&cfg)
			result, err := client.Start(deadline(t, 10*time.Second), cfg)
			if err != nil {
				t.Fatal(err)
			}
			want := &bootstrap.BootstrapResult{Version: 2, Address: "unix:///run/s/abc", Protocol: "ttrpc"}
			if diff := cmp.Diff(want, result, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if got := strings.TrimSpace(read(t, cfg, "args")); got != row.args {
				t.Errorf("args %q, want %q", got, row.args)
			}
			if got := strings.TrimSpace(read(t, cfg, "cwd")); got != cfg.Bundle {
				t.Errorf("working directory %s, want %s", got, cfg.Bundle)
			}
			env := "\n" + read(t, cfg, "env")
			for _, want := range row.env {
				if !strings.Contains(env, "\n"+want+"\n") {
					t.Errorf("%s is not in the environment", want)
				}
			}
			for _, name := range row.without {
				if strings.Contains(env, "\n"+name+"=") {
					t.Errorf("%s is in the environment", name)
				}
			}
			checkStdin(t, read(t, cfg, "stdin"), row.params, row.any)
		})
	}
}

func checkStdin(t *testing.T, stdin string, params *bootstrap.BootstrapParams, options *anypb.Any) {
	t.Helper()
	var want, got proto.Message
	switch {
	case params != nil:
		want, got = params, &bootstrap.BootstrapParams{}
	case options != nil:
		want, got = options, &anypb.Any{}
	default:
		if stdin != "" {
			t.Errorf("stdin is %q, want nothing", stdin)
		}
		return
	}
	if err := proto.Unmarshal([]byte(stdin), got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// octal returns data as printf(1) takes it.
func octal(t *testing.T, m proto.Message) string {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range data {
		b.WriteString(`\0` + string([]byte{'0' + c>>6, '0' + c>>3&7, '0' + c&7}))
	}
	return "printf '%b' '" + b.String() + "'"
}

func TestAnswerIsReadAsContainerdReadsIt(t *testing.T) {
	v3 := &bootstrap.BootstrapResult{Version: 3, Address: "unix:///run/s/abc", Protocol: "ttrpc"}
	message := octal(t, v3)
	rows := []struct {
		name   string
		script string
		legacy bool
		want   int32 // version; 0: an error
	}{
		{"a message", message, false, 3},
		{"a plain address", plainAnswer, false, 2},
		{"a plain address in a line", "echo unix:///run/s/abc", false, 2},
		{"a legacy answer", plainAnswer, true, 2},
		{"a message for a legacy manager", message, true, 0},
		{"nothing", "", false, 0},
		{"nothing for a legacy manager", "", true, 0},
		{"an address and a warning", plainAnswer + "; echo warning >&2", false, 2},
		{"a warning and a message", "echo warning >&2; " + message, false, 0},
		{"another protocol", octal(t, &bootstrap.BootstrapResult{Version: 3, Address: "unix:///a", Protocol: "grpc"}), false, 0},
		{"a version from the future", octal(t, &bootstrap.BootstrapResult{Version: 4, Address: "unix:///a", Protocol: "ttrpc"}), false, 0},
		{"another kind of address", "printf tcp://127.0.0.1", true, 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := fakeShim(t, row.script)
			cfg.Legacy = row.legacy
			result, err := client.Start(deadline(t, 10*time.Second), cfg)
			if result.GetVersion() != row.want || (err != nil) != (row.want == 0) {
				t.Errorf("version %d, error %v; want version %d", result.GetVersion(), err, row.want)
			}
			if row.name == "an address and a warning" && result.GetAddress() == v3.Address {
				t.Error("the warning is not in the address, as it would be for containerd")
			}
		})
	}
}

func TestFailedStartShowsWhatTheShimSaid(t *testing.T) {
	cfg := fakeShim(t, "echo out; echo err >&2; exit 3")
	_, err := client.Start(deadline(t, 10*time.Second), cfg)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "out\nerr") {
		t.Errorf("error %v", err)
	}
	cfg.Binary = "/nonexistent/shim"
	if _, err = client.Start(deadline(t, 10*time.Second), cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not exist", err)
	}
}

func TestStartIsKilledWithItsContext(t *testing.T) {
	leak.Check(t)
	cfg := fakeShim(t, ": >ready; exec sleep 1000")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := client.Start(ctx, cfg)
		failed <- err
	}()
	limit := deadline(t, 10*time.Second)
	for {
		if _, err := os.Stat(filepath.Join(cfg.Bundle, "ready")); err == nil {
			break
		}
		select {
		case <-limit.Done():
			t.Fatal("the shim was not started")
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

func TestDaemonThatHoldsStandardErrorIsFoundOut(t *testing.T) {
	cfg := fakeShim(t, plainAnswer+"; sleep 30 >/dev/null & echo $! >daemon")
	_, err := client.Start(deadline(t, 20*time.Second), cfg)
	if !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("error %v, want that somebody holds the pipe", err)
	}
	if out, err := exec.Command("kill", strings.TrimSpace(read(t, cfg, "daemon"))).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDeletePassesBundleAndReadsAnswer(t *testing.T) {
	answer := &task.DeleteResponse{Pid: 4, ExitStatus: 137}
	cfg := fakeShim(t, "echo warning >&2; "+octal(t, answer))
	cfg.Debug = true
	got, stderr, err := client.Delete(deadline(t, 10*time.Second), cfg)
	if err != nil || stderr != "warning\n" {
		t.Errorf("stderr %q, error %v", stderr, err)
	}
	if diff := cmp.Diff(answer, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	want := "-namespace ns -address /run/g.sock -publish-binary containerd -id c1 -bundle " + cfg.Bundle + " -debug delete"
	if got := strings.TrimSpace(read(t, cfg, "args")); got != want {
		t.Errorf("args %q, want %q", got, want)
	}
	if got := read(t, cfg, "stdin"); got != "" {
		t.Errorf("stdin %q, want nothing", got)
	}

	cfg.Containerd = "1.6.20"
	if _, _, err := client.Delete(deadline(t, 10*time.Second), cfg); err != nil {
		t.Error(err)
	}
	if got := read(t, cfg, "args"); strings.Contains(got, "-debug") {
		t.Errorf("args %q; 1.6 never passes -debug here", got)
	}
}

func TestFailedDeleteShowsItsStderr(t *testing.T) {
	_, stderr, err := client.Delete(deadline(t, 10*time.Second), fakeShim(t, "echo gone wrong >&2; exit 1"))
	if err == nil || !strings.Contains(err.Error(), "gone wrong") || stderr != "gone wrong\n" {
		t.Errorf("stderr %q, error %v", stderr, err)
	}
}
